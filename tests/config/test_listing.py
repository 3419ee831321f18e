"""The composed configuration as gin, with the place that set each value."""

from gin_files import FULL, HEADER
from gin_samples import RunConfig

from jaxtool.config import loader
from jaxtool.config.listing import listing


def test_every_value_names_the_line_the_parameter_or_the_default_that_set_it(write):
    write("s.ModelConfig.width = 8\ns.ModelConfig.depth = 3\n", "model.gin")
    run = write(
        "include 'model.gin'\nDEEP = 5\ns.RunConfig.model = @s.ModelConfig()\n"
        "s.ModelConfig.depth = %DEEP\n"
    )
    write("s.RunConfig.levels = ('a',)\n", "over.gin")
    found = listing(RunConfig, files=[run, "over.gin"], params=["RunConfig.steps = 7"])
    lines = HEADER.count("\n")
    origins = {name: one.origin for name, one in found.values.items()}
    assert origins["gin_samples.RunConfig.model"] == f"run.gin:{lines + 3}"
    assert origins["gin_samples.ModelConfig.width"] == f"model.gin:{lines + 1}"
    place = f"run.gin:{lines + 4} (DEEP of run.gin:{lines + 2})"
    assert origins["gin_samples.ModelConfig.depth"] == place
    assert origins["gin_samples.RunConfig.levels"] == f"over.gin:{lines + 1}"
    assert origins["gin_samples.RunConfig.steps"] == "--gin_param 'RunConfig.steps = 7'"
    assert origins["gin_samples.RunConfig.mode"] == "default"
    assert origins["gin_samples.AdamConfig.learning_rate"] == "default"  # of a default part
    assert found.values["gin_samples.ModelConfig.depth"].value == "5"
    line = next(line for line in found.text.splitlines() if ".depth = 5" in line)
    assert line.endswith(f"  # {place}")


def test_the_text_builds_an_equal_object(write):
    found = listing(RunConfig, files=[write(FULL)])
    assert found.config == loader.load(RunConfig, files=["run.gin"])
    again = write(found.text, "listed.gin", header="")
    assert loader.load(RunConfig, files=[again]) == found.config
    assert set(found.values) == set(listing(RunConfig, files=[again]).values)


def test_two_parts_of_one_class_each_keep_their_own_places(write):
    text = (
        "s.RunConfig.model = @s.ModelConfig()\ns.RunConfig.reference = @old/s.ModelConfig()\n"
        "s.ModelConfig.width = 8\nold/s.ModelConfig.width = 4\n"
    )
    found = listing(RunConfig, files=[write(text)])
    lines = HEADER.count("\n")
    origins = {name: one.origin for name, one in found.values.items() if name.endswith("width")}
    assert sorted(origins.values()) == [f"run.gin:{lines + 3}", f"run.gin:{lines + 4}"]
    assert origins["reference/gin_samples.ModelConfig.width"] == f"run.gin:{lines + 4}"
