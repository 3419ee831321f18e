"""Prompts that stand once for a group: the same numbers as with a copy for each trajectory, to rounding."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from helpers.grpo_batches import MODEL, assert_same_gradients, gradients
from helpers.ledgers import ledger
from helpers.targets import members_of, with_advantages
from helpers.tiny_models import VOCAB, random_params

from jaxtool.core.types import ToolStatus, Trajectory
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.grpo_learner import place_batch
from jaxtool.learn.learner import make_learner
from jaxtool.learn.off_policy_choices import TokenTruncation
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.programs import LearnerProgram, critic_programs, policy_programs
from jaxtool.model.value_head import with_value_head
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import PackConfig, to_batch

# Prompts of 9, 5 and 1 tokens; the responses to the first do not fit one row of 32 tokens.
RESPONSES = {9: ("ppp", "pttppp", "ppppppp", "pttp", "pppp"), 5: ("pp", "ppptp"), 1: ("ppp", "p")}
REWARDS = [1.0, -1.0, 1.0, 0.5, -1.0, 1.0, -1.0, 0.25, -0.5]
# Gradient descent: where a gradient is rounding, Adam's first step is its sign, and any number may be off.
DESCENT = OptimizerConfig(learning_rate=1e-1, rule=lambda shared: optax.sgd(shared.learning_rate))
APART, SHARED = (PackConfig(row_tokens=32, shares_prompts=shares) for shares in (False, True))


def trajectories() -> list[Trajectory]:
    """All of a prompt begin with the same ids; the rest is random."""
    numbers, made = np.random.default_rng(0), []
    for length, responses in RESPONSES.items():
        prompt = numbers.integers(0, VOCAB, length)
        for sample, response in enumerate(responses):
            one = ledger(
                "Q" * length + response,
                problem=f"p{length}",
                sample=sample,
                calls=[ToolStatus.OK] * ("t" in response),
            )
            ids = np.concatenate([prompt, numbers.integers(0, VOCAB, len(response))])
            made.append(dataclasses.replace(one, ids=ids.astype(np.int32)))
    return made


BATCHES = {config: to_batch(trajectories(), config) for config in (APART, SHARED)}


def setup_of(**fields) -> LearnerSetup:
    return LearnerSetup(
        model=MODEL,
        grpo=GrpoConfig(**({"micro_batch_rows": 2, "lm_head_chunk": 8} | fields)),
        optimizer=DESCENT,
        sharding=single_device(),
        temperature=0.8,
        num_trajectories=len(REWARDS),
    )


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def of_trajectories(config: PackConfig, values: np.ndarray) -> list[np.ndarray]:
    """Values of the tokens that carry a loss, by trajectory."""
    batch = BATCHES[config]
    return [values[(batch.trajectory_ids == k) & batch.loss_mask] for k in range(len(REWARDS))]


def assert_same_by_trajectory(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for x, y in zip(one, other, strict=True):
        assert len(x)
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_fewer_rows_hold_the_batch():
    tokens = {config: (batch.segment_ids != 0).sum() for config, batch in BATCHES.items()}
    # Two rows hold the first prompt (2 x 8 tokens), each of its five responses the last token of it.
    assert tokens[APART] == 5 * 9 + 24 + 2 * 5 + 7 + 2 * 1 + 4
    assert tokens[SHARED] == 2 * 8 + 5 + 24 + 4 + 2 + 7 + 2 + 4
    assert BATCHES[SHARED].shape[0] < BATCHES[APART].shape[0]


@pytest.mark.parametrize(
    ("attention_block", "remat"), [(None, "none"), (7, "block")], ids=["spans", "blocks"]
)
def test_loss_gradients_and_metrics_equal_separate_copies(params, attention_block, remat):
    """Every term of the loss: clipping, corrections, entropy and the KL against a reference."""
    fields = {"kl_coef": 0.3, "entropy_coef": 0.2, "off_policy": (TokenTruncation(cap=2.0),)}
    setup = setup_of(**fields, micro_batch_rows=8)
    model = dataclasses.replace(MODEL, attention_block=attention_block, remat=remat)
    setup = dataclasses.replace(setup, model=model)
    reference = random_params(MODEL, seed=1)
    got, wanted = (
        gradients(params, with_advantages(BATCHES[config], REWARDS), setup, reference)
        for config in (SHARED, APART)
    )
    assert_same_gradients(got[0], wanted[0], rtol=1e-3, atol=1e-5)
    for name, total in wanted[1][0].items():
        np.testing.assert_allclose(got[1][0][name], total, rtol=1e-4, atol=1e-5, err_msg=name)


def test_old_and_reference_logprobs_and_values_equal_separate_copies(params):
    setup = setup_of()
    old = policy_programs(setup).old_logprobs
    critic = critic_programs(setup, CriticConfig()).values
    head = np.random.default_rng(2).normal(size=MODEL.d_model).astype(np.float32)
    tower = with_value_head(params, MODEL) | {"value_head": head}

    def found(config: PackConfig, program: LearnerProgram, tree) -> list[np.ndarray]:
        placed = place_batch(BATCHES[config], setup)
        return of_trajectories(config, placed.gathered(lambda x: program.run(tree, x)))

    for program, tree in ((old, params), (critic, tower)):
        assert_same_by_trajectory(found(SHARED, program, tree), found(APART, program, tree))


@pytest.mark.parametrize(
    ("critic", "fields"),
    [
        (None, {"reward_kl_coef": 0.1}),
        (CriticConfig(optimizer=DESCENT, warmup_batches=0), {"kl_coef": 0.1}),
    ],
    ids=["grpo", "ppo"],
)
def test_a_whole_step_equals_one_with_separate_copies(params, critic, fields):
    """Targets, updates of policy and critic, metrics. One trajectory is in its group but carries no loss."""
    setup = setup_of(**fields)
    members = members_of(REWARDS, dropped=(1,))
    learner = make_learner(setup, critic, PolicyView(first_copy=random_params(MODEL, seed=1)))
    packed = learner.packed(members)
    ends = []
    for config in (SHARED, APART):
        batch = to_batch([trajectories()[i] for i in packed], config)
        state = learner.start(params)
        placed, aims = learner.targets(state, batch, members)
        assert placed is not None
        ends.append((*learner.update(state, placed), aims))
    (state, metrics, aims), (wanted_state, wanted_metrics, wanted_aims) = ends
    np.testing.assert_allclose(aims, wanted_aims, rtol=1e-5)
    assert set(metrics) == set(wanted_metrics)
    for name in metrics:
        np.testing.assert_allclose(
            *(float(x[name]) for x in (metrics, wanted_metrics)),
            rtol=1e-3,
            atol=1e-5,
            err_msg=name,
        )
    ends = zip(jax.tree.leaves(state), jax.tree.leaves(wanted_state), strict=True)
    for x, y in ends:
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    moved = zip(jax.tree.leaves(learner.policy(state)), jax.tree.leaves(params), strict=True)
    assert all(np.any(np.abs(np.asarray(x) - np.asarray(y)) > 1e-4) for x, y in moved)


def test_responses_to_one_prompt_do_not_see_each_other(params):
    """Other tokens in one of them change no log-prob of the rest, to the bit."""
    setup = setup_of()
    old = policy_programs(setup).old_logprobs
    batch = BATCHES[SHARED]
    other = batch.tokens.copy()
    at = (batch.trajectory_ids == 2) & (batch.positions > 9)
    other[at] = (other[at] + 1) % VOCAB
    one, changed = (
        place_batch(dataclasses.replace(batch, tokens=tokens), setup).gathered(
            lambda x: old.run(params, x)
        )
        for tokens in (batch.tokens, other)
    )
    is_same = [
        np.array_equal(x, y)
        for x, y in zip(of_trajectories(SHARED, one), of_trajectories(SHARED, changed), strict=True)
    ]
    assert is_same == [k != 2 for k in range(len(REWARDS))]
