"""What a run refuses before it reads weights."""

import dataclasses

import pytest
from helpers.small_runs import rl_config

from jaxtool.model.sources import RandomInit
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.train.rl_loop import train


@pytest.mark.parametrize(
    ("part", "field", "value", "mesh"),
    [
        ("grpo", "micro_batch_rows", 3, MeshConfig(data=2, fsdp=4)),
        ("pack", "row_tokens", 33, MeshConfig(context=2, fsdp=4)),
    ],
)
def test_a_run_refuses_before_it_reads_weights(tmp_path, monkeypatch, part, field, value, mesh):
    def load(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(RandomInit, "load", load)
    config = rl_config(tmp_path)
    changed = dataclasses.replace(getattr(config, part), **{field: value})
    config = dataclasses.replace(config, **{part: changed, "mesh": mesh})
    with pytest.raises(ValueError, match=f"{field}={value}"):
        train(config, workdir=tmp_path / "run", seed=0)
