"""What each process of the test on several hosts does; one process with as many devices does the same."""

import asyncio
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import jax
import numpy as np
from helpers.small_runs import MODEL, CountingTool, Sums, cold_start_of, rl_config

from jaxtool.core.types import Group, Origin, ToolResult, Trajectory, trajectories_of
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.host_copy import publish_to_host
from jaxtool.learn.advantage_choices import ReinforcePlusPlus
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.model.config import tiny
from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh, fetch, put
from jaxtool.parallel.mesh import AXES, MeshConfig, make_mesh
from jaxtool.renderers.demonstrations import demonstration
from jaxtool.renderers.renderer import Renderer
from jaxtool.rundir.rollout_journal import FOLDER
from jaxtool.study import evaluation_plan
from jaxtool.study.evaluating import run_evaluation
from jaxtool.tools.base import CodeRunner
from jaxtool.train import rl_loop, sft_loop
from jaxtool.train.overlapped_rollouts import OverlappedRollouts
from jaxtool.train.rl_config import RlConfig, Schedule
from jaxtool.train.sft_loop import SftRunConfig

STEPS = 3


def config_of(folder: Path, mesh: MeshConfig, steps: int = STEPS) -> RlConfig:
    """Three steps of three problems: one host has two of them, the other one."""
    plain = rl_config(folder)
    return dataclasses.replace(
        plain,
        mesh=mesh,
        policy=RandomInit(config=dataclasses.replace(MODEL, vocab_size=18)),  # even: tensor=2
        schedule=Schedule(
            steps=steps,
            problems_per_step=3,
            samples=4,
            pool=5,
            eval_every=3,
            eval_problems=3,
            checkpoint_every=2,
            log_trajectories_every=1,
            log_trajectories=100,
        ),
        # REINFORCE++ divides by the spread of the whole batch, not of one host's groups.
        grpo=GrpoConfig(micro_batch_rows=8, lm_head_chunk=32, advantage=ReinforcePlusPlus()),
        engine=dataclasses.replace(plain.engine, prefill_rows=8),
    )


def ppo_config_of(folder: Path, mesh: MeshConfig) -> RlConfig:
    """Two steps with a critic and the KL in the reward; the first warms the critic up alone."""
    plain = config_of(folder, mesh)
    return dataclasses.replace(
        plain,
        schedule=dataclasses.replace(plain.schedule, steps=2, eval_every=0, checkpoint_every=9),
        grpo=GrpoConfig(micro_batch_rows=8, lm_head_chunk=32, reward_kl_coef=0.01),
        critic=CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-2), warmup_batches=1),
        unloads_decoder=True,
        offloads_learner=True,  # moments and critic, each host its own shards
    )


def lora_config_of(folder: Path, mesh: MeshConfig) -> RlConfig:
    """Two steps of an adapter, with a KL to the base that every host holds a part of."""
    plain = config_of(folder, mesh)
    return dataclasses.replace(
        plain,
        schedule=dataclasses.replace(plain.schedule, steps=2, eval_every=0, checkpoint_every=9),
        grpo=dataclasses.replace(plain.grpo, kl_coef=0.01),
        lora=LoraConfig(rank=2, alpha=8.0),
    )


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """The same sums in another order for each batch."""

    def take(
        self, count: int, *, seed: int, index: int, renderer: Renderer, tokenizer: Tokenizer
    ) -> list[Trajectory]:
        problems = Sums().problems("train", count, 0)
        return [
            demonstration(problems[i], f"<{i}>[{i}]{i}!!", renderer=renderer, tokenizer=tokenizer)
            for i in np.random.default_rng([seed, index]).permutation(count)
        ]


def cold_start_config_of(folder: Path, mesh: MeshConfig) -> SftRunConfig:
    return cold_start_of(config_of(folder, mesh), [5], Demonstrations(), log_every=1)


def run_all(folder: Path, mesh: MeshConfig) -> None:
    """A cold start, GRPO from its policy, answers of both: each in a folder of its own."""
    cold_start = folder / "cold_start"
    sft_loop.train(cold_start_config_of(folder, mesh), workdir=cold_start, seed=1)
    train_from_cold_start(folder, mesh, "run", CountingTool())
    evaluate_both(folder, mesh)


def run_further(folder: Path, mesh: MeshConfig) -> None:
    """PPO and an adapter."""
    tool = CountingTool()
    rl_loop.train(ppo_config_of(folder, mesh), workdir=folder / "ppo", seed=1, tool=tool)
    rl_loop.train(lora_config_of(folder, mesh), workdir=folder / "lora", seed=1, tool=tool)


def train_from_cold_start(folder: Path, mesh: MeshConfig, name: str, tool: CodeRunner) -> None:
    rl_loop.train(
        config_of(folder, mesh),
        workdir=folder / name,
        seed=1,
        init_from=folder / "cold_start",
        tool=tool,
    )


def evaluate_both(folder: Path, mesh: MeshConfig) -> None:
    """Chunks of two questions: of three chunks one host has two."""
    policies = {"cold_start": str(folder / "cold_start"), "grpo": str(folder / "run")}
    asked = evaluation_plan.Asked(data="", problems=5, samples=4)
    with mock.patch.object(evaluation_plan, "_CHUNK_ANSWERS", 8):
        plan = evaluation_plan.plan_evaluation(config_of(folder, mesh), policies, asked)
    assert plan.settings.chunks == 3
    run_evaluation(plan, folder / "evaluation", tool=CountingTool())


class LateTool(CountingTool):
    """Other rows decode meanwhile."""

    async def execute(self, code: str) -> ToolResult:
        await asyncio.sleep(0.02)
        return await super().execute(code)


def late_config_of(
    folder: Path, mesh: MeshConfig, *, max_staleness: int, learning_rate: float, **fields: Any
) -> RlConfig:
    """Four steps whose rows outlive their step. With a rate of 1e-30 no version differs from the first."""
    plain = config_of(folder, mesh)
    schedule = dataclasses.replace(
        plain.schedule, steps=4, eval_every=0, max_staleness=max_staleness
    )
    optimizer = OptimizerConfig(learning_rate=learning_rate)
    return dataclasses.replace(plain, schedule=schedule, optimizer=optimizer, **fields)


class Recording(OverlappedRollouts):
    """Keeps which versions wrote the tokens of each step."""

    versions: ClassVar[dict[int, list[list[int]]]] = {}  # by step, of each row the policy's tokens

    def draw(self, step: int, draw: int) -> list[Group]:
        groups = super().draw(step, draw)
        self.versions[step] = [
            t.policy_versions[t.origins == Origin.POLICY].tolist() for t in trajectories_of(groups)
        ]
        return groups


def run_late(folder: Path, mesh: MeshConfig) -> dict[str, dict[int, list[list[int]]]]:
    """Overlapped runs: one unloads the decoder for each update; the other one learns."""
    found = {}
    for name, rate, unloads in (("late", 1e-30, True), ("late_learning", 1e-2, False)):
        config = late_config_of(
            folder, mesh, max_staleness=1, learning_rate=rate, unloads_decoder=unloads
        )
        Recording.versions.clear()
        rl_loop.train(
            config,
            workdir=folder / name,
            seed=1,
            tool=LateTool(),
            open_rollouts=lambda stack, *rest: stack.enter_context(Recording(*rest)),
        )
        found[name] = dict(Recording.versions)
    return found


class StopsItsHost(CountingTool):
    """A SIGTERM for host 1 alone, in the second step; the call in which it comes would take an hour."""

    def __init__(self, workdir: Path):
        super().__init__()
        self._workdir = workdir

    async def execute(self, code: str) -> ToolResult:
        rows = _rows_of(self._workdir)
        if hosts.place()[0] == 1 and rows == 1 and any((self._workdir / FOLDER).glob("1.*")):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(3600)
        return await super().execute(code)


class KillsItsHost(CountingTool):
    """A SIGKILL for host 1, in the first call of the step after the checkpoint."""

    def __init__(self, workdir: Path):
        super().__init__()
        self._workdir = workdir

    async def execute(self, code: str) -> ToolResult:
        if hosts.place()[0] == 1 and _rows_of(self._workdir) >= 2:
            while not (self._workdir / "checkpoints" / "2").is_dir():
                await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().execute(code)


def _rows_of(workdir: Path) -> int:
    metrics = workdir / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def run_stopped(folder: Path) -> None:
    """The run from the cold start once more, until host 1 is told to stop."""
    workdir = folder / "killed"
    train_from_cold_start(folder, MeshConfig(fsdp=4, tensor=2), "killed", StopsItsHost(workdir))


def run_killed(folder: Path) -> dict[str, Any]:
    """The same command after that, until host 1 is killed."""
    workdir = folder / "killed"
    train_from_cold_start(folder, MeshConfig(fsdp=4, tensor=2), "killed", KillsItsHost(workdir))
    return {"process": jax.process_index()}


def run_again(folder: Path) -> dict[str, Any]:
    """The same command after that."""
    train_from_cold_start(folder, MeshConfig(fsdp=4, tensor=2), "killed", CountingTool())
    return {"process": jax.process_index()}


def run(folder: Path) -> dict[str, Any]:
    """Primitives, the decoder's copy where tensor groups span hosts, then the runs."""
    index, count = jax.process_index(), jax.process_count()
    assert hosts.exchange("x" * (10 * index + 1)) == ["x" * (10 * i + 1) for i in range(count)]
    assert hosts.agree(lambda: index) == 0
    assert hosts.exchange(hosts.share(range(5))) == [[0, 2, 4], [1, 3]][:count] or count == 1
    spread_copies()
    run_all(folder, MeshConfig(fsdp=4, tensor=2))
    return {
        "process": index,
        "versions": run_late(folder, MeshConfig(fsdp=4, tensor=2)),
        "files": sorted(p.name for p in (folder / "run").iterdir()),
    }


def spread_copies() -> None:
    """Every host's copy is whole, wherever the learner's mesh puts the members of a group of the decoder."""
    model = dataclasses.replace(tiny(16), num_layers=1)
    devices = np.array(jax.devices())
    mixed = devices.reshape(2, -1).T.reshape(-1)
    # The last: the learner has rows of its own on both members of a group.
    for order, shape, rules in (
        (devices, (1, -1, 1, 2), decode()),
        (mixed, (1, -1, 1, 2), decode()),
        (mixed, (1, -1, 2, 1), decode(tensor="context x tensor")),
    ):
        axis_types = make_mesh(MeshConfig()).axis_types
        mesh = jax.sharding.Mesh(order.reshape(shape), AXES, axis_types=axis_types)
        _, params = RandomInit(config=model).load(Sharding(mesh), 0)
        own = Sharding(decode_mesh(mesh, rules), rules)
        copy = publish_to_host(params, model, own)
        assert copy["embedding"].is_fully_addressable
        assert copy["embedding"].sharding.mesh == own.mesh
        np.testing.assert_array_equal(fetch(copy["embedding"]), fetch(params["embedding"]))
        kernel = params["layers"]["mlp"]["gate"]["kernel"]
        np.testing.assert_array_equal(
            fetch(copy["layers"][0]["mlp"]["gate"]["kernel"]), fetch(kernel)[0]
        )
    rows = np.arange(16, dtype=np.int32).reshape(8, 2)
    np.testing.assert_array_equal(fetch(put(rows, Sharding(mesh).named("batch", "length"))), rows)


def further(folder: Path) -> dict[str, Any]:
    run_further(folder, MeshConfig(fsdp=4, tensor=2))
    return {"process": jax.process_index()}
