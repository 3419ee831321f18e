"""The strict loader: gin's meaning, one-line errors with file and line, an exact record."""

import pathlib
import pickle

import gin
import gin_samples
import pytest
from gin_files import FULL, MINIMAL, error_of, load
from gin_samples import AdamConfig, Kind, ListDataset, Mode, ModelConfig, RunConfig

from jaxtool.config import loader


def test_every_kind_of_field_is_built_and_converted(write):
    config = load(write(FULL))
    scaling = {"factor": 8.0, "low": 1.0}
    assert config.model == ModelConfig(width=16, rope_scaling=scaling)
    assert config.reference == ModelConfig(width=16, depth=4, rope_scaling=scaling)
    assert config.optimizer == AdamConfig(learning_rate=3.0, betas=(0.0, 0.99))
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.dataset == ListDataset(size=7)
    assert config.mode is Mode.SHAPED
    assert config.kind is Kind.SECOND
    assert config.levels == ("one", "two")
    assert config.weights == (1.0, 2.5)
    assert config.data == pathlib.Path("folder/file.txt")
    assert config.schedule(3) == -6.0
    assert config.hooks[0] is gin_samples.constant
    assert config.hooks[1](0) == 5.0
    assert pickle.loads(pickle.dumps(config)) == config


def test_gin_itself_builds_an_equal_object(write):
    """Without conversions, the language and its meaning are gin's own."""
    text = """
    SIZE = 4
    SHARED = @s.AdamConfig()
    s.RunConfig.model = @a/s.ModelConfig()
    s.RunConfig.reference = @a/b/s.ModelConfig()
    s.RunConfig.optimizer = %SHARED
    s.RunConfig.levels = ('x', 'y')
    s.RunConfig.steps = %SIZE
    s.ModelConfig.width = %SIZE
    a/s.ModelConfig.depth = 5
    a/b/s.ModelConfig.width = 6
    s.AdamConfig.learning_rate = 0.1
    SHARED/s.AdamConfig.clip = 2.0
    """.replace("\n    ", "\n")
    file = write("include 'base.gin'\ns.RunConfig.steps = 8\n")
    write(text, "base.gin")
    ours = load(file)
    gin.clear_config()
    gin.parse_config_file(file)
    gin.finalize()
    theirs = gin.get_configurable(RunConfig)()
    gin.clear_config()
    assert ours == theirs
    assert ours.reference == ModelConfig(width=6, depth=5)
    assert ours.optimizer == AdamConfig(learning_rate=0.1, clip=2.0)
    assert ours.steps == 8


def test_a_function_is_returned_bound_and_not_called(write):
    file = write(MINIMAL + "s.train.config = @s.RunConfig()\ns.RunConfig.steps = 4\n")
    bound = loader.load(gin_samples.train, files=[file], params=["train.seed = 7"])
    assert bound() == "trained 4 steps with seed 7"
    assert bound == loader.load(gin_samples.train, files=[file], params=["s.train.seed = 7"])


def test_loading_twice_keeps_nothing(write):
    first = load(write(MINIMAL + "s.RunConfig.schedule = @s.linear\ns.linear.slope = 2.0\n"))
    second = load(write(MINIMAL, "second.gin"))
    assert second == RunConfig(model=ModelConfig(width=8))
    assert first.schedule(3) == 6.0


def test_params_win_and_need_only_the_last_names(write):
    file = write(MINIMAL + "STEPS = 1\ns.RunConfig.steps = %STEPS\n")
    assert load(file, "STEPS = 5").steps == 5
    config = load(file, "STEPS=5", "RunConfig.levels = ('a',)", "ModelConfig.width=3")
    assert (config.steps, config.levels, config.model.width) == (5, ("a",), 3)
    swap = write("s.RunConfig.steps = 1\n", "swap.gin")
    for name in ("s.tiny_model", "gin_samples.tiny_model"):  # named by no file, but reachable
        swapped = load(swap, f"RunConfig.model = @{name}()", f"{name}.width = 4")
        assert swapped.model == ModelConfig(width=4)


def test_included_files_are_found_beside_the_including_file(write):
    file = write("include '../models/tiny.gin'\n", "configs/runs/run.gin")
    write(MINIMAL, "configs/models/tiny.gin")
    assert load(file).model.width == 8


# Each case: bindings behind the header (2 lines), then parts of the message.
MISTAKES = {
    "typo'd macro definition": (
        MINIMAL + "s.RunConfig.steps = %STEPS\nSTEPS = 3\nSTEPSS = 4\n",
        ["run.gin:7: ", "nothing reads the macro STEPSS; did you mean STEPS?"],
    ),
    "undefined macro": (
        MINIMAL + "STEPS = 3\ns.RunConfig.steps = %STEPZ\n",
        ["run.gin:6: ", "macro %STEPZ is not defined; did you mean STEPS?"],
    ),
    "macro loop": (
        MINIMAL + "A = %B\nB = %A\ns.RunConfig.steps = %A\n",
        ["run.gin:5: ", "defined by itself"],
    ),
    "dead scope": (
        MINIMAL + "s.RunConfig.reference = @eval/s.ModelConfig()\nevall/s.ModelConfig.depth = 3\n",
        ["run.gin:6: ", "no reference opens the scope evall; did you mean eval?"],
    ),
    "unused configurable": (
        MINIMAL + "s.AdamConfig.learning_rate = 0.1\n",
        ["run.gin:5: ", "s.AdamConfig is not part of what is built; reference it as @s.AdamConfig"],
    ),
    "value that every use overrides": (
        "s.RunConfig.model = @a/s.ModelConfig()\ns.ModelConfig.width = 8\n"
        "a/s.ModelConfig.width = 9\n",
        ["run.gin:4: ", "every use of s.ModelConfig has its own value"],
    ),
    "unknown parameter": (
        MINIMAL + "s.RunConfig.stepz = 3\n",
        ["run.gin:5: ", "s.RunConfig has no parameter stepz; did you mean steps?"],
    ),
    "unknown configurable": (
        MINIMAL + "s.AdamConfg.clip = 1.0\n",
        ["run.gin:5: ", "s has no AdamConfg; did you mean AdamConfig?"],
    ),
    "module not imported": (
        MINIMAL + "samples.AdamConfig.clip = 1.0\n",
        ["run.gin:5: ", "samples of samples.AdamConfig is not imported"],
    ),
    "string for float": (
        MINIMAL + "s.RunConfig.optimizer = @s.AdamConfig()\ns.AdamConfig.learning_rate = '1e-3'\n",
        ["run.gin:6: ", "s.AdamConfig.learning_rate: expected float, got '1e-3' (str)", "quotes"],
    ),
    "float for int": (
        MINIMAL + "s.RunConfig.steps = 8.0\n",
        ["run.gin:5: ", "expected int, got 8.0 (float); write 8"],
    ),
    "bool for int": (
        MINIMAL + "s.RunConfig.steps = True\n",
        ["run.gin:5: ", "expected int, got True (bool)"],
    ),
    "wrong type through a macro": (
        MINIMAL + "STEPS = 'many'\ns.RunConfig.steps = %STEPS\n",
        ["run.gin:6: ", "s.RunConfig.steps (%STEPS of run.gin:5): expected int, got 'many'"],
    ),
    "wrong enum member": (
        MINIMAL + "s.RunConfig.mode = 'papers'\n",
        ["run.gin:5: ", "expected Mode, one of 'paper', 'shaped', got 'papers'"],
    ),
    "wrong literal": (
        MINIMAL + "s.RunConfig.aggregation = 'mean'\n",
        ["run.gin:5: ", "expected 'token' or 'sequence', got 'mean'"],
    ),
    "wrong item of a multi-line tuple": (
        MINIMAL + "s.RunConfig.levels = ('a',\n  'b',\n  3)\ns.RunConfig.steps = 2\n",
        ["run.gin:5: ", "item 2: expected str, got 3 (int)"],
    ),
    "wrong number of items": (
        MINIMAL + "s.RunConfig.optimizer = @s.AdamConfig()\ns.AdamConfig.betas = (0.9,)\n",
        ["run.gin:6: ", "expected 2 values", "got 1"],
    ),
    "class instead of instance": (
        "s.RunConfig.model = @s.ModelConfig\ns.ModelConfig.width = 8\n",
        ["run.gin:3: ", "expected ModelConfig"],
    ),
    "not the protocol": (
        MINIMAL + "s.RunConfig.dataset = @s.AdamConfig()\n",
        ["run.gin:5: ", "expected Dataset (a protocol), got AdamConfig("],
    ),
    "None where it is not allowed": (
        MINIMAL + "s.RunConfig.steps = None\n",
        ["run.gin:5: ", "expected int, got None"],
    ),
    "REQUIRED macro": (
        MINIMAL + "STEPS = %gin.REQUIRED\ns.RunConfig.steps = %STEPS\n",
        ["run.gin:5: ", "STEPS is REQUIRED", "--gin_param 'STEPS = ...'"],
    ),
    "REQUIRED parameter": (
        MINIMAL + "s.RunConfig.steps = %gin.REQUIRED\n",
        ["run.gin:5: ", "s.RunConfig.steps is REQUIRED", "--gin_param 's.RunConfig.steps = ...'"],
    ),
    "missing field of a part": (
        "s.RunConfig.model = @s.ModelConfig()\n",
        ["run.gin:3: ", "s.ModelConfig.width has no default and nothing binds it"],
    ),
    "missing field of the target": (
        "s.RunConfig.steps = 3\n",
        ["run.gin:3: ", "s.RunConfig.model has no default and nothing binds it"],
    ),
    "check of the dataclass": (
        MINIMAL + "s.RunConfig.optimizer = @s.AdamConfig()\n\ns.AdamConfig.learning_rate = -1\n",
        ["run.gin:7: ", "s.AdamConfig refuses its values: self.learning_rate=-1.0 must be"],
    ),
    "bound twice": (
        MINIMAL + "s.RunConfig.steps = 3\ns.RunConfig.steps = 4\n",
        ["run.gin:6: ", "s.RunConfig.steps is already bound at run.gin:5"],
    ),
    "missing include": (
        MINIMAL + "include 'bse.gin'\n",
        ["run.gin:5: ", "include bse.gin: no such file"],
    ),
    "arithmetic": (
        MINIMAL + "s.RunConfig.steps = 2 * 3\n",
        ["run.gin:5: ", "Expected newline"],
    ),
    "unquoted string": (
        MINIMAL + "s.RunConfig.mode = paper\n",
        ["run.gin:5: ", "Failed to parse token 'paper'", "strings need quotes"],
    ),
    "unclosed bracket": (
        MINIMAL + "s.RunConfig.levels = ('a',\n",
        ["run.gin:"],
    ),
    "import of a function": (
        "from gin_samples import constant\n",
        ["run.gin:3: ", "cannot import the module gin_samples.constant", "import modules"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_file_and_line(name, write):
    text, parts = MISTAKES[name]
    message = error_of(write(text))
    assert message.startswith(parts[0])
    for part in parts[1:]:
        assert part in message


PARAM_MISTAKES = {
    "RunConfig.steps = 'x'": "expected int, got 'x'",
    "RunConfig.stepz = 1": "has no parameter stepz; did you mean steps?",
    "RunConfg.steps = 1": "no file names RunConfg; did you mean RunConfig?",
    "STEPZ = 1": "nothing reads the macro STEPZ",
    "RunConfig.mode = paper": "strings need quotes",
    "include 'x.gin'": "only bindings",
    "oops/ModelConfig.depth = 1": "no reference opens the scope oops",
}


@pytest.mark.parametrize("param", PARAM_MISTAKES)
def test_a_mistake_in_a_parameter_quotes_it(param, write):
    message = error_of(write(MINIMAL), param)
    assert message.startswith(f"--gin_param '{param}': ")
    assert PARAM_MISTAKES[param] in message


def test_a_mistake_in_an_included_file_names_that_file(write):
    file = write("include 'deep/base.gin'\n")
    write(MINIMAL + "\n# a comment\ns.RunConfig.steps = 'x'\n", "deep/base.gin")
    assert error_of(file).startswith("deep/base.gin:7: s.RunConfig.steps: expected int")


def test_missing_file_and_missing_header(write):
    assert "--gin_file absent.gin: no such file" in error_of("absent.gin")
    with pytest.raises(loader.ConfigError, match="pass one with --gin_file"):
        loader.load(RunConfig, files=[])
    message = error_of(write(MINIMAL, header="import gin_samples as s\n"))
    assert message.startswith("run.gin:1: the first statement must be")


def test_includes_that_would_undo_bindings_are_refused(write):
    write(MINIMAL + "s.RunConfig.steps = 3\n", "base.gin")
    undone = error_of(write("s.RunConfig.steps = 4\ninclude 'base.gin'\n"))
    assert undone.startswith("run.gin:3: s.RunConfig.steps is overridden by the later include")
    write("include 'base.gin'\n", "other.gin")
    twice = error_of(write("include 'base.gin'\ninclude 'other.gin'\n"))
    assert twice.startswith("other.gin:3: base.gin is already included at run.gin:3")
    loop = error_of(write("include 'run.gin'\n"))
    assert loop.startswith("run.gin:3: run.gin includes itself")


def test_an_ablation_may_swap_a_part_whose_bindings_then_rest(write):
    base = MINIMAL + "s.RunConfig.schedule = @s.linear\ns.linear.slope = %SLOPE\nSLOPE = 2.0\n"
    write(base, "base.gin")
    file = write("include 'base.gin'\ns.RunConfig.schedule = @s.constant\n")
    assert load(file).schedule is gin_samples.constant
    message = error_of(file, "SLOPE = 3.0")
    assert message.startswith("--gin_param 'SLOPE = 3.0': nothing reads the macro SLOPE")


def test_overlays_win_over_the_run_and_not_over_each_other(write):
    """In either order, with both files and both values in the message; a parameter decides."""
    run = write(MINIMAL + "s.RunConfig.steps = 1\n")
    four, five = (write(f"s.RunConfig.steps = {n}\n", f"{n}.gin") for n in (4, 5))
    also_four = write("s.RunConfig.steps = 4\ns.RunConfig.levels = ('x',)\n", "same.gin")
    assert loader.load(RunConfig, files=[run, four]).steps == 4
    both = loader.load(RunConfig, files=[run, four, also_four])
    assert (both.steps, both.levels) == (4, ("x",))
    for first, second, values in ((four, five, "54"), (five, four, "45")):
        with pytest.raises(loader.ConfigError) as error:
            loader.load(RunConfig, files=[run, first, second])
        assert str(error.value).startswith(
            f"{values[0]}.gin:3: s.RunConfig.steps = {values[0]} would replace {values[1]} of "
            f"{values[1]}.gin:3; leave out one"
        )
    decided = loader.load(RunConfig, files=[run, four, five], params=["RunConfig.steps = 6"])
    assert decided.steps == 6


def test_an_overlay_is_not_made_void_by_another(write):
    """What a run includes may rest; the bindings of an overlay act, or are refused."""
    run = write(MINIMAL + "s.RunConfig.schedule = @s.linear\ns.linear.slope = 2.0\n")
    steeper = write("s.linear.slope = 3.0\n", "steeper.gin")
    constant = write("s.RunConfig.schedule = @s.constant\n", "constant.gin")
    assert loader.load(RunConfig, files=[run, constant]).schedule is gin_samples.constant
    assert loader.load(RunConfig, files=[run, steeper]).schedule(3) == 9.0
    for overlays in ([steeper, constant], [constant, steeper]):
        with pytest.raises(loader.ConfigError) as error:
            loader.load(RunConfig, files=[run, *overlays])
        assert str(error.value).startswith("steeper.gin:3: nothing reads s.linear.slope")
        assert "s.RunConfig.schedule of constant.gin:3 replaced what read it" in str(error.value)
        params = ["RunConfig.schedule = @s.constant"]
        rests = loader.load(RunConfig, files=[run, *overlays], params=params)
        assert rests.schedule is gin_samples.constant


def test_equal_values_of_two_overlays_agree_however_they_are_written(write):
    run = write(MINIMAL)
    one = write("s.RunConfig.schedule = @s.constant\n", "one.gin")
    other = write(
        "from __gin__ import dynamic_registration\nimport gin_samples\n"
        "gin_samples.RunConfig.schedule = @gin_samples.constant\n",
        "other.gin",
        header="",
    )
    config = loader.load(RunConfig, files=[run, one, other])
    assert config.schedule is gin_samples.constant


def test_a_refusal_names_every_place_that_its_message_speaks_of(write):
    run = write(MINIMAL + "s.RunConfig.optimizer = @s.AdamConfig()\n")
    clip = write("s.AdamConfig.learning_rate = 1.0\ns.AdamConfig.clip = 2.0\n", "clip.gin")
    quiet = write("s.RunConfig.is_quiet = True\n", "quiet.gin")
    with pytest.raises(loader.ConfigError) as error:
        loader.load(RunConfig, files=[run, clip, quiet])
    assert str(error.value) == (
        "clip.gin:4: s.RunConfig refuses its values: RunConfig.is_quiet does not go with "
        "AdamConfig.clip=2.0 (see also quiet.gin:3)"
    )


def test_a_target_is_read_from_where_load_reads(monkeypatch, tmp_path):
    """The working directory, or else the repository."""
    monkeypatch.chdir(tmp_path)
    assert loader.target_of("gin_configs/runs/quickstart_grpo.gin").__name__ == "RlConfig"
    with pytest.raises(loader.ConfigError, match=r"--gin_file nowhere\.gin: no such file in"):
        loader.target_of("nowhere.gin")
