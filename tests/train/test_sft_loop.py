"""The cold start: killed and resumed equals uninterrupted, bit by bit; bad input is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from helpers.small_runs import MODEL, RENDERER, SmallTokenizer, Sums, cold_start

from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.sft import SftConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.renderers.demonstrations import demonstration
from jaxtool.rollout.batching import PackConfig
from jaxtool.rundir import jsonl
from jaxtool.rundir.checkpoints import Checkpoints, SavedPolicy
from jaxtool.rundir.run_record import read_record
from jaxtool.tools.function import Function
from jaxtool.train import sft_loop
from jaxtool.train.sft_loop import DemonstrationStream, SftRunConfig


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """A different order of the same sums for each batch; `broken_at` is no part of its name."""

    broken_at: list[int] = dataclasses.field(default_factory=list, repr=False)

    def take(self, count, *, seed, index, renderer, tokenizer):
        if index in self.broken_at:
            raise KeyboardInterrupt
        order = np.random.default_rng([seed, index]).permutation(4)[:count]
        problems = Sums().problems("train", 4, 0)
        return [
            demonstration(problems[i], f"<{i}>[{i}]{i}!!", renderer=renderer, tokenizer=tokenizer)
            for i in order
        ]


def config_of(folder, demonstrations, **fields):
    renderer = folder / "one_character.toml"
    renderer.write_text(RENDERER)
    stream = DemonstrationStream(demonstrations=demonstrations, renderer=str(renderer), count=3)
    defaults = {
        "policy": RandomInit(config=MODEL),
        "tokenizer": SmallTokenizer(),
        "streams": (stream,),
        "optimizer": OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
        "steps": 5,
        "sft": SftConfig(micro_batch_rows=2, lm_head_chunk=16),
        "pack": PackConfig(row_tokens=32),
        "checkpoint_every": 2,
        "log_every": 1,
    }
    return SftRunConfig(**(defaults | fields))


def rows_of(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "time_s"} for row in rows]


def test_interrupted_and_resumed_equals_uninterrupted_bitwise(tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    cold_start(config_of(tmp_path, Demonstrations()), workdir=whole, seed=1)
    for broken_at in ([1], [3]):
        with pytest.raises(KeyboardInterrupt):
            cold_start(config_of(tmp_path, Demonstrations(broken_at)), workdir=again, seed=1)
    # A run of three steps that was finished goes on, too: no other rule keeps its last step.
    cold_start(config_of(tmp_path, Demonstrations(), steps=3), workdir=again, seed=1)
    assert (again / "policy").exists()
    cold_start(config_of(tmp_path, Demonstrations()), workdir=again, seed=1)
    record = read_record(again)
    assert record is not None
    assert [start.from_step for start in record.starts] == [0, 0, 2, 3]
    assert rows_of(again) == rows_of(whole)
    losses = [row["sft/loss_nats"] for row in rows_of(whole)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    one, other = (
        SavedPolicy(path=str(folder / "policy")).load(single_device(), 0)[1]
        for folder in (whole, again)
    )
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)
    # A finished run is left alone: this would raise at its first step.
    finished = config_of(tmp_path, Demonstrations([0]))
    assert cold_start(finished, workdir=whole, seed=1) == whole / "policy"


def test_a_tokenizer_of_another_policy_is_refused(tmp_path):
    tokenizer = SmallTokenizer(characters="012345+=<>![]?abc")
    config = config_of(tmp_path, Demonstrations(), tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"tokenizer has 19 tokens, .* only 17"):
        cold_start(config, workdir=tmp_path / "run", seed=1)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_impossible_runs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="streams is empty"):
        config_of(tmp_path, Demonstrations(), streams=())
    with pytest.raises(ValueError, match=r"SftRunConfig.steps must be >= 1, got 0"):
        config_of(tmp_path, Demonstrations(), steps=0)


def test_blocks_that_the_mesh_does_not_divide_are_refused_by_name(tmp_path):
    config = config_of(
        tmp_path,
        Demonstrations(),
        sft=SftConfig(micro_batch_rows=4, last_block_rows=3, lm_head_chunk=16),
        mesh=MeshConfig(data=2, fsdp=2, tensor=2),
    )
    with pytest.raises(ValueError, match=r"^last_block_rows=3 does not divide over .* = 4 devices"):
        sft_loop.train(config, workdir=tmp_path / "run", seed=0)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with pytest.raises(ValueError, match=r"^last_block_rows=3 does not divide"):
        sft_loop.train(config, workdir=tmp_path / "given", seed=0, mesh=mesh)


def test_the_tools_of_a_stream_stand_in_its_prompts_and_must_fit_its_renderer():
    def stream(renderer, *calls):
        tools = tuple(Function(call=f"helpers.user_tools:{call}") for call in calls)
        made = DemonstrationStream(
            demonstrations=Demonstrations(), renderer=renderer, count=1, tools=tools
        )
        return made.load_renderer()

    assert [spec.name for spec in stream("hermes", "length", "square").tools] == [
        "length",
        "square",
    ]
    assert stream("two_shot_text").tools == ()
    with pytest.raises(
        ValueError, match=r"^DemonstrationStream.tools holds length, and the renderer 'two_"
    ):
        stream("two_shot_text", "length")
    with pytest.raises(
        ValueError, match=r"^DemonstrationStream.tools: two tools are called 'length'"
    ):
        stream("hermes", "length", "length")
    with pytest.raises(ValueError, match="renderer 'retool' cannot call the tool 'length'"):
        stream("retool", "length")


def test_rows_are_on_the_disk_before_a_checkpoint_that_counts_on_them(tmp_path, monkeypatch):
    order, sync, save = [], jsonl.sync, Checkpoints.save
    monkeypatch.setattr(jsonl, "sync", lambda file: order.append("rows") or sync(file))
    monkeypatch.setattr(
        Checkpoints, "save", lambda self, step, *rest: order.append(step) or save(self, step, *rest)
    )
    cold_start(config_of(tmp_path, Demonstrations()), workdir=tmp_path / "run", seed=0)
    rows = ["rows", "rows"]  # of metrics and of trajectories
    assert order == [*rows, 2, *rows, 4, *rows, 5]
