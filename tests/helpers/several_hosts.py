"""What each process of the test on several hosts does; one process with as many devices does the same."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from helpers.small_runs import MODEL, CountingTool, Sums, cold_start_of, rl_config

from jaxtool.core.types import Trajectory
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
from jaxtool.train import rl_loop, sft_loop
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
    """GRPO, PPO, an adapter and a cold start, each in a folder of its own."""
    tool = CountingTool()
    rl_loop.train(config_of(folder, mesh), workdir=folder / "run", seed=1, tool=tool)
    rl_loop.train(ppo_config_of(folder, mesh), workdir=folder / "ppo", seed=1, tool=tool)
    rl_loop.train(lora_config_of(folder, mesh), workdir=folder / "lora", seed=1, tool=tool)
    sft_loop.train(cold_start_config_of(folder, mesh), workdir=folder / "cold_start", seed=1)


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
        "files": sorted(p.name for p in (folder / "run").iterdir()),
    }


def spread_copies() -> None:
    """Every host's copy is whole, wherever the learner's mesh puts the members of a tensor group."""
    model = dataclasses.replace(tiny(16), num_layers=1)
    devices = np.array(jax.devices())
    for order in (devices, devices.reshape(2, -1).T.reshape(-1)):
        mesh = jax.sharding.Mesh(
            order.reshape(1, -1, 1, 2), AXES, axis_types=make_mesh(MeshConfig()).axis_types
        )
        _, params = RandomInit(config=model).load(Sharding(mesh), 0)
        own = Sharding(decode_mesh(mesh), decode())
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
