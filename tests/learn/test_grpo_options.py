"""Every loss, correction, aggregation, KL and entropy term of the GRPO update, through the real model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.grpo_batches import (
    ADVANTAGES,
    MODEL,
    SHAPES,
    assert_same_gradients,
    batch_of,
    gradients,
    setup_of,
    trajectories,
    update,
    without_advantages,
)
from helpers.tiny_models import random_params

from jaxtool.algos.kl import kl_k1, kl_k2, kl_k3
from jaxtool.learn import grpo
from jaxtool.learn.aggregation_choices import SequenceConstantMean, SequenceSum
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.loss_choices import Cispo, Gspo, Sapo
from jaxtool.learn.off_policy_choices import (
    GeometricRejection,
    SequenceTruncation,
    TokenMask,
    TokenTruncation,
)
from jaxtool.learn.state import make_state, row_blocks
from jaxtool.parallel.axis_rules import single_device


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def test_kl_against_the_policy_itself_is_zero(params):
    plain, _ = gradients(params, batch_of(), setup_of())
    with_kl, [sums] = gradients(params, batch_of(), setup_of(kl_coef=5.0), reference=params)
    assert float(sums["policy/kl_k3_nats"]) == pytest.approx(0.0, abs=1e-5)
    assert_same_gradients(with_kl, plain)
    other = random_params(MODEL, seed=1)
    away, [sums] = gradients(params, batch_of(), setup_of(kl_coef=5.0), reference=other)
    assert float(sums["policy/kl_k3_nats"]) > 0.1
    assert float(away.loss) > float(plain.loss)


def test_importance_weights_are_capped(params):
    """A sampler that gave every token probability e^-50 would weigh e^40 and more: it weighs 2."""
    batch = batch_of()
    behaviour = np.where(batch.loss_mask, -50.0, 0.0).astype(np.float32)
    batch = dataclasses.replace(batch, behaviour_logprobs=behaviour)
    plain, _ = gradients(params, batch, setup_of())
    capped, _ = gradients(params, batch, setup_of(off_policy=(TokenTruncation(cap=2.0),)))
    np.testing.assert_allclose(capped.loss, 2 * plain.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batch_rows": 0}, "GrpoConfig.micro_batch_rows must be >= 1"),
        ({"kl_coef": -1.0}, "kl_coef must be >= 0, got -1.0"),
        ({"advantage": "std"}, "GrpoConfig.advantage='std' is a string"),
        (
            {"loss": kl_k1},
            r"kl_k1\(logprobs, reference_logprobs\) cannot be \(too many positional arguments",
        ),
        ({"kl_estimator": "k4"}, "GrpoConfig.kl_estimator='k4' is a string"),
        ({"old_policy": "both"}, "old_policy='both' must be 'learner' or 'sampler'"),
        ({"old_policy": "sampler", "off_policy": (TokenTruncation(),)}, "would do it twice"),
    ],
)
def test_impossible_options_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GrpoConfig(**fields)


def test_a_constant_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"SequenceConstantMean\.tokens must be > 0"):
        SequenceConstantMean(tokens=0.0)


@pytest.mark.parametrize(
    ("aggregation", "divisor"), [(SequenceSum(), 1.0), (SequenceConstantMean(tokens=4.0), 4.0)]
)
def test_losses_of_sums_over_trajectories_by_hand(params, aggregation, divisor):
    """On policy: -Σ A|y| / 8 trajectories, and that over the constant."""
    tokens = np.array([t.num_policy_tokens for t in trajectories()])
    total, _ = gradients(params, batch_of(), setup_of(aggregation=aggregation))
    wanted = -(ADVANTAGES * tokens).sum() / len(SHAPES)
    np.testing.assert_allclose(total.loss, wanted / divisor, rtol=1e-5)


@pytest.mark.parametrize("loss", [Gspo(), Cispo(), Sapo()], ids=lambda x: type(x).__name__)
def test_every_loss_has_the_gradient_of_ppo_on_policy(params, loss):
    wanted, _ = gradients(params, batch_of(), setup_of())
    got, [sums] = gradients(params, batch_of(), setup_of(loss=loss))
    for x, y in zip(jax.tree.leaves(got.grads), jax.tree.leaves(wanted.grads), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert float(sums["policy/clipped_fraction"]) == 0.0


@pytest.mark.parametrize(
    "correction",
    [TokenTruncation(), SequenceTruncation(), TokenMask(), GeometricRejection()],
    ids=lambda x: type(x).__name__,
)
def test_corrections_do_nothing_where_sampler_and_learner_agree(params, correction):
    batch, setup = batch_of(), setup_of(off_policy=(correction,))
    [block] = row_blocks(batch, 8, single_device())
    exact = np.asarray(grpo.old_logprobs(params, block, setup=setup))[: batch.shape[0]]
    behaviour = np.where(batch.loss_mask, exact, 0.0).astype(np.float32)
    batch = dataclasses.replace(batch, behaviour_logprobs=behaviour)
    wanted, _ = gradients(params, batch, setup_of())
    got, [sums] = gradients(params, batch, setup)
    assert float(sums["policy/rejected_fraction"]) == 0.0
    assert float(sums["mismatch/max_abs_logprob_nats"]) < 1e-5
    assert_same_gradients(got, wanted)


def test_rejected_trajectories_carry_no_gradient_and_stay_in_the_denominator(params):
    """Behaviour log-probs of -1, -2, ... / 10 are far from a random policy: everything is rejected."""
    setup = setup_of(off_policy=(GeometricRejection(), TokenTruncation()))
    total, [sums] = gradients(params, batch_of(), setup)
    assert float(sums["policy/rejected_fraction"]) == batch_of().loss_mask.sum()
    assert not any(np.any(g) for g in jax.tree.leaves(total.grads))


def test_bypass_takes_the_samplers_logprobs_as_the_anchor(params):
    """Ratio to a sampler that gave every token e^-50: e^20 by the clamp, all clipped where A > 0."""
    batch = batch_of()
    behaviour = np.where(batch.loss_mask, -50.0, 0.0).astype(np.float32)
    batch = dataclasses.replace(
        batch, behaviour_logprobs=behaviour, advantages=batch.loss_mask.astype(np.float32)
    )
    total, [sums] = gradients(params, batch, setup_of(old_policy="sampler"))
    np.testing.assert_allclose(total.loss, -1.28, rtol=1e-5)
    assert float(sums["policy/clipped_fraction"]) == batch.loss_mask.sum()
    decoupled, [sums] = gradients(params, batch, setup_of())
    np.testing.assert_allclose(decoupled.loss, -1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "of_token"),
    [
        (kl_k1, lambda d: d),
        (kl_k2, lambda d: d**2 / 2),
        (kl_k3, lambda d: jnp.exp(-d) - 1 + d),
    ],
)
def test_kl_estimators_enter_the_loss_with_value_gradient_and_sign(params, estimator, of_token):
    """Without advantages the loss is 0.3 times the estimator's mean, d = log π - log π_ref."""
    batch, reference = without_advantages(batch_of()), random_params(MODEL, seed=1)
    setup = setup_of(kl_coef=0.3, kl_estimator=estimator)
    [block] = row_blocks(batch, 8, single_device())
    fixed = grpo.old_logprobs(reference, block, setup=setup)

    def plain(params):
        difference = grpo._logprobs(params, block, setup)[0] - fixed
        return 0.3 * jnp.where(block.loss_mask, of_token(difference), 0.0).sum() / 29

    assert batch.loss_mask.sum() == 29  # the letters p of SHAPES
    wanted, wanted_gradient = jax.jit(jax.value_and_grad(plain))(params)
    assert abs(float(wanted)) > 0.01
    got, _ = gradients(params, batch, setup, reference)
    np.testing.assert_allclose(got.loss, wanted, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(got.grads), jax.tree.leaves(wanted_gradient), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    own, _ = gradients(params, batch, setup, reference=params)
    assert float(own.loss) == pytest.approx(0.0, abs=1e-6)


def test_entropy_bonus_by_hand(params):
    """A policy of zeros is uniform: ln 48 nats at each token, so the loss is -0.2 ln 48."""
    uniform = jax.tree.map(jnp.zeros_like, params)
    setup = setup_of(entropy_coef=0.2)
    total, [sums] = gradients(uniform, without_advantages(batch_of()), setup)
    np.testing.assert_allclose(total.loss, -0.2 * 3.8712010, rtol=1e-6)
    np.testing.assert_allclose(sums["policy/entropy_nats"], 29 * 3.8712010, rtol=1e-6)


@pytest.mark.parametrize("coef", [0.1, -0.1])
def test_updates_with_an_entropy_bonus_raise_the_entropy(params, coef):
    """And a negative coefficient lowers it: nothing else moves a policy without advantages."""
    batch, setup = without_advantages(batch_of()), setup_of(entropy_coef=coef)
    state = make_state(params, setup.optimizer, single_device())
    entropies = []
    for _ in range(3):
        state, metrics = update(state, batch, setup)
        entropies.append(float(metrics["policy/entropy_nats"]))
    change = np.diff(entropies) * np.sign(coef)
    assert np.all(change > 0.01), entropies
