"""The record of a configuration builds an equal one."""

import dataclasses

import gin_samples
import pytest
from gin_files import FULL, MINIMAL, load
from gin_samples import ListDataset, ModelConfig, RunConfig

from jaxtool.config import loader, record


def text_of(config) -> str:
    return loader.operative_config(config)


@pytest.mark.parametrize("text", [MINIMAL, FULL], ids=["minimal", "full"])
def test_the_record_builds_an_equal_object(text, write):
    config = load(write(text))
    again = load(write(text_of(config), "record.gin", header=""))
    assert again == config
    assert text_of(again) == text_of(config)
    for field in dataclasses.fields(RunConfig):
        assert f"gin_samples.RunConfig.{field.name} = " in text_of(config)


def test_the_record_holds_what_python_changed_and_equal_parts_once(write):
    config = load(write(MINIMAL))
    model = ModelConfig(width=8)
    config = dataclasses.replace(config, steps=99, reference=model, weights=(float("inf"), -1e-9))
    text = text_of(config)
    assert load(write(text, header="")) == config
    assert text.count("ModelConfig.width") == 1


def test_the_record_of_a_bound_function_builds_an_equal_one(write):
    file = write(MINIMAL + "s.train.config = @s.RunConfig()\n")
    bound = loader.load(gin_samples.train, files=[file])
    again = write(text_of(bound), "record.gin", header="")
    assert loader.load(loader.target_of(again), files=[again]) == bound
    assert "# gin_samples.train.seed = 0 by default" in text_of(bound)


def test_the_record_refuses_what_it_cannot_express(write):
    config = load(write(MINIMAL))
    for schedule in (lambda step: 1.0, ListDataset().sample):
        broken = dataclasses.replace(config, schedule=schedule)
        with pytest.raises(loader.ConfigError, match=r"^schedule is .* cannot express"):
            text_of(broken)
    with pytest.raises(loader.ConfigError, match=r"weights\.0 is nan"):
        text_of(dataclasses.replace(config, weights=(float("nan"),)))


def test_the_written_record_names_commit_and_target(write, tmp_path):
    config = load(write(MINIMAL))
    path = loader.write_operative_config(tmp_path / "workdir", config)
    assert path.name == record.RECORD_NAME
    assert f"# commit: {record.git_commit()}\n" in path.read_text()
    assert loader.target_of(path) is RunConfig
    assert loader.load(RunConfig, files=[path]) == config


def test_the_commit_is_that_of_the_checkout():
    root = loader.REPOSITORY_ROOT
    commit = record.git_commit()
    if (root / ".git").exists():
        assert len(commit.split()[0]) == 40
    else:
        assert commit == record.NO_COMMIT
