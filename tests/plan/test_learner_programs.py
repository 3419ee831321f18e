"""The plan traces the learner's programs as a run calls them: the same text, from shapes alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ledgers import random_ledgers
from helpers.small_runs import MODEL, rl_config
from helpers.targets import with_advantages
from helpers.tiny_models import random_params

from jaxtool.learn.grpo import OldLogprobs
from jaxtool.learn.grpo_learner import place_batch
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.ppo_learner import PpoLearner
from jaxtool.learn.programs import critic_programs, policy_programs
from jaxtool.learn.state import zero_gradients
from jaxtool.model.lora import LoraConfig
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.parallel.axis_rules import single_device
from jaxtool.plan.learner_programs import learner_programs
from jaxtool.plan.program import placed
from jaxtool.rollout.batching import to_batch
from jaxtool.train.numerics import learner_setup


def test_what_waits_on_the_host_is_not_there_while_rows_decode(tmp_path):
    """AdamW's moments are twice the parameters; the critic has parameters and moments of its own."""
    base = rl_config(tmp_path)
    base = dataclasses.replace(base, critic=CriticConfig(), unloads_decoder=True)
    sharding = single_device()
    shapes = param_shapes(MODEL)
    params = placed(shapes, sharding.tree(param_axes(shapes)))
    beside = learner_programs(base, sharding, params)
    away = learner_programs(dataclasses.replace(base, offloads_learner=True), sharding, params)
    assert beside.decoding == beside.held == away.held
    rest = {"optimizer state", "critic", "critic optimizer state"}
    assert set(away.held) - set(away.decoding) == {"parameters", *rest}
    # With an adapter what is published stays: only a small part of it is trained.
    adapted = dataclasses.replace(base, offloads_learner=True, lora=LoraConfig())
    lora = learner_programs(adapted, sharding, params)
    assert set(lora.held) - set(lora.decoding) == rest
    # In an update all of it is there: the programs are planned alike.
    assert [p.other_resident for p in away.programs] == [p.other_resident for p in beside.programs]


@pytest.mark.parametrize("shares_prompts", [False, True])
def test_a_plan_traces_what_a_run_calls(tmp_path, shares_prompts):
    base = rl_config(tmp_path)
    grpo = dataclasses.replace(base.grpo, updates_per_batch=2, kl_coef=0.1)
    pack = dataclasses.replace(base.pack, shares_prompts=shares_prompts)
    config = dataclasses.replace(base, grpo=grpo, critic=CriticConfig(), pack=pack)
    assert config.critic is not None
    sharding = single_device()
    shapes = param_shapes(MODEL)
    layout = sharding.tree(param_axes(shapes))
    plan = learner_programs(config, sharding, placed(shapes, layout))

    setup = learner_setup(config, MODEL, sharding)
    params = jax.device_put(random_params(MODEL), layout)
    learner = PpoLearner(setup=setup, view=PolicyView(first_copy=params), critic=config.critic)
    state = learner.start(params)
    packed = to_batch(random_ledgers(("Qpp", "QQppp")), config.pack)
    [mini, *_] = place_batch(with_advantages(packed, [1.0, -1.0]), setup).mini_batches
    [block] = mini.blocks
    numbers = jax.device_put(jnp.zeros(block.tokens.shape), sharding.named("batch", "length"))

    def text(program, tower):
        full = learner.view.full(tower.params)
        return program.trace(
            state=tower,
            total=zero_gradients(tower.params, sharding),
            params=tower.params,
            policy=full,
            tower=full,
            view=learner.view,
            block=block,
            inputs=block.without_targets(),
            old=OldLogprobs(values=numbers, is_own=np.bool_(True)),
            old_values=numbers,
            returns=numbers,
            count=np.float32(1),
        )

    policy, critic = policy_programs(setup), critic_programs(setup, config.critic)
    run = {
        program.name: text(program, tower)
        for table, tower in ((policy, state.policy), (critic, state.critic))
        for program in (getattr(table, field.name) for field in dataclasses.fields(table))
    }
    assert {program.name for program in plan.programs} == {*run}
    for program in plan.programs:
        assert program.trace().lower().as_text() == run[program.name].lower().as_text()
