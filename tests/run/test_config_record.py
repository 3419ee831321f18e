"""The record of a configuration builds an equal one."""

import dataclasses

import gin_samples
import pytest
from gin_files import FULL, MINIMAL, load
from gin_samples import ListDataset, ModelConfig, RunConfig

from jaxtool.run import config_record, gin_config


def record(config) -> str:
    return gin_config.operative_config(config)


@pytest.mark.parametrize("text", [MINIMAL, FULL], ids=["minimal", "full"])
def test_the_record_builds_an_equal_object(text, write):
    config = load(write(text))
    again = load(write(record(config), "record.gin", header=""))
    assert again == config
    assert record(again) == record(config)
    for field in dataclasses.fields(RunConfig):
        assert f"gin_samples.RunConfig.{field.name} = " in record(config)


def test_the_record_holds_what_python_changed_and_equal_parts_once(write):
    config = load(write(MINIMAL))
    model = ModelConfig(width=8)
    config = dataclasses.replace(config, steps=99, reference=model, weights=(float("inf"), -1e-9))
    text = record(config)
    assert load(write(text, header="")) == config
    assert text.count("ModelConfig.width") == 1


def test_the_record_of_a_bound_function_builds_an_equal_one(write):
    file = write(MINIMAL + "s.train.config = @s.RunConfig()\n")
    bound = gin_config.load(gin_samples.train, files=[file])
    again = write(record(bound), "record.gin", header="")
    assert gin_config.load(gin_config.target_of(again), files=[again]) == bound
    assert "# gin_samples.train.seed = 0 by default" in record(bound)


def test_the_record_refuses_what_it_cannot_express(write):
    config = load(write(MINIMAL))
    for schedule in (lambda step: 1.0, ListDataset().sample):
        broken = dataclasses.replace(config, schedule=schedule)
        with pytest.raises(gin_config.ConfigError, match=r"^schedule is .* cannot express"):
            record(broken)
    with pytest.raises(gin_config.ConfigError, match=r"weights\.0 is nan"):
        record(dataclasses.replace(config, weights=(float("nan"),)))


def test_the_written_record_names_commit_and_target(write, tmp_path):
    config = load(write(MINIMAL))
    path = gin_config.write_operative_config(tmp_path / "workdir", config)
    assert path.name == config_record.RECORD_NAME
    assert f"# commit: {config_record.git_commit()}\n" in path.read_text()
    assert gin_config.target_of(path) is RunConfig
    assert gin_config.load(RunConfig, files=[path]) == config


def test_the_commit_is_that_of_the_checkout():
    root = gin_config.REPOSITORY_ROOT
    commit = config_record.git_commit()
    if (root / ".git").exists():
        assert len(commit.split()[0]) == 40
    else:
        assert commit == config_record.NO_COMMIT
