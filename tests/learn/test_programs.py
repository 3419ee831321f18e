"""The table of programs: an update runs what it lists, and nothing else of learn is compiled."""

import dataclasses
import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest
from helpers.grpo_batches import MODEL, SHAPES, batch_of, setup_of, trajectories
from helpers.targets import members_of
from helpers.tiny_models import random_params

import jaxtool.learn
from jaxtool.learn.learner import make_learner
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.programs import cold_start_programs, critic_programs, policy_programs
from jaxtool.learn.sft import SftConfig, SftSetup
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import PackConfig, to_batch

CRITIC = CriticConfig(warmup_batches=0)


def compiled() -> dict[str, int]:
    """How many programs each jitted function of learn has."""
    sizes = {}
    for found in pkgutil.iter_modules(jaxtool.learn.__path__):
        module = importlib.import_module(f"jaxtool.learn.{found.name}")
        for name, value in vars(module).items():
            if hasattr(value, "_cache_size") and value.__module__ == module.__name__:
                sizes[name] = value._cache_size()
    return sizes


def functions_of(table: Any, *without: str) -> set[str]:
    rows = {field.name: getattr(table, field.name) for field in dataclasses.fields(table)}
    return {row.run.func.__name__ for name, row in rows.items() if name not in without}


@pytest.mark.parametrize("updates", [1, 2])
@pytest.mark.parametrize("critic", [None, CRITIC], ids=["grpo", "ppo"])
def test_an_update_runs_the_programs_of_the_table(critic, updates):
    # A temperature of its own: nothing is compiled for it before.
    setup = setup_of(micro_batch_rows=2, updates_per_batch=updates)
    temperature = 0.5 + updates / 10 + (critic is not None) / 100
    setup = dataclasses.replace(setup, temperature=temperature)
    optimizer = OptimizerConfig(learning_rate=1e-3 * temperature)
    setup = dataclasses.replace(setup, optimizer=optimizer)
    learner = make_learner(setup, critic, PolicyView())
    state = learner.start(random_params(MODEL))
    before = compiled()
    packed = to_batch(trajectories(), PackConfig(row_tokens=16))
    placed, _ = learner.targets(state, packed, members_of(np.arange(len(SHAPES)) / 4.0))
    assert placed is not None
    learner.update(state, placed)
    called = {name for name, size in compiled().items() if size > before[name]}
    wanted = functions_of(policy_programs(setup), *(["old_logprobs"] if updates == 1 else []))
    if critic is not None:
        wanted |= functions_of(critic_programs(setup, critic))
    assert called - {"zero_gradients"} == wanted


def test_a_cold_start_runs_the_programs_of_the_table():
    setup = SftSetup(
        model=MODEL,
        sft=SftConfig(micro_batch_rows=2, lm_head_chunk=7),
        optimizer=OptimizerConfig(learning_rate=0.0123),
        sharding=single_device(),
    )
    learner = SftLearner(setup=setup, view=PolicyView())
    state, before = learner.start(random_params(MODEL)), compiled()
    learner.update(state, batch_of().without_targets())
    called = {name for name, size in compiled().items() if size > before[name]}
    assert called - {"zero_gradients"} == functions_of(cold_start_programs(setup))
