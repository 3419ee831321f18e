"""What each process of the test on several hosts does; one process with as many devices does the same."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from helpers.small_runs import MODEL, CountingTool, rl_config

from jaxtool.decode.host_copy import publish_to_host
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.model.config import tiny
from jaxtool.model.sources import RandomInit
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh, fetch, put
from jaxtool.parallel.mesh import AXES, MeshConfig, make_mesh
from jaxtool.run import rl_loop
from jaxtool.run.rl_loop import RlConfig, Schedule

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
        grpo=GrpoConfig(block_rows=8, logprob_chunk=32, advantage="reinforce_plus_plus"),
        engine=dataclasses.replace(plain.engine, prefill_rows=8),
    )


def run(folder: Path) -> dict[str, Any]:
    """Primitives, the decoder's copy where tensor groups span hosts, then a run."""
    index, count = jax.process_index(), jax.process_count()
    assert hosts.exchange("x" * (10 * index + 1)) == ["x" * (10 * i + 1) for i in range(count)]
    assert hosts.agree(lambda: index) == 0
    parts = hosts.exchange(hosts.share(range(5)))
    assert hosts.together(parts) == list(range(5))
    spread_copies()
    rl_loop.train(
        config_of(folder, MeshConfig(fsdp=4, tensor=2)),
        workdir=folder / "run",
        seed=1,
        tool=CountingTool(),
    )
    return {"process": index, "files": sorted(p.name for p in (folder / "run").iterdir())}


def spread_copies() -> None:
    """Every host's copy is whole, wherever the learner's mesh puts the members of a tensor group."""
    model = dataclasses.replace(tiny(16), num_layers=1)
    devices = np.array(jax.devices())
    for order in (devices, devices.reshape(2, -1).T.reshape(-1)):
        mesh = jax.sharding.Mesh(
            order.reshape(1, -1, 2), AXES, axis_types=make_mesh(MeshConfig()).axis_types
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
