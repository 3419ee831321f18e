"""Losses and gradients against TRL's own, on random numbers. Skipped where TRL and torch are not installed.

TRL computes its loss inside the trainer; here that method runs on a stand-in that knows the settings
and hands it log-probs. `pip install trl torch` in an environment of its own (checked with 1.16.0).
"""

import types
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.algos import aggregation, kl, policy_loss

torch = pytest.importorskip("torch", reason="TRL's losses need torch: pip install trl torch")
pytest.importorskip("trl", reason="the comparison needs TRL: pip install trl torch")

B, T = 5, 7
NUMBERS = np.random.default_rng(0)
LOGPROBS, REFERENCE = (NUMBERS.normal(-2, 0.5, (B, T)).astype(np.float32) for _ in "ab")
OLD = (LOGPROBS + NUMBERS.normal(0, 0.4, (B, T))).astype(np.float32)
ADVANTAGES = NUMBERS.normal(size=B).astype(np.float32)
MASK = NUMBERS.random((B, T)) < 0.7  # holes are what tools wrote
MASK[:, 0] = True
IDS = np.repeat(np.arange(B, dtype=np.int32)[:, None], T, axis=1)


def trl_loss(**settings: Any) -> tuple[float, np.ndarray]:
    """TRL's loss and its gradient with respect to the log-probs."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    trainer = mock.MagicMock()
    trainer.configure_mock(
        **{
            "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None,
            "importance_sampling_level": "token",
            "beta": 0.0,
            "epsilon_low": 0.2,
            "epsilon_high": 0.28,
            "use_vllm": False,
            "aux_loss_enabled": False,
            "_entropy_bonus_enabled": False,
            "current_gradient_accumulation_steps": 1,
            "max_completion_length": 50,
        }
        | settings
    )
    trainer.args = types.SimpleNamespace(
        delta=settings.get("delta"),
        sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05,
        use_bias_correction_kl=False,
        steps_per_generation=1,
    )
    trainer.accelerator.num_processes = 1
    trainer.accelerator.gather = lambda x: x
    trainer.accelerator.reduce = lambda x, reduction: x
    trainer._get_per_token_logps_and_entropies.return_value = logprobs, torch.zeros(B, T), None
    ones = torch.ones(B, T, dtype=torch.long)
    inputs = {
        "prompt_ids": ones,
        "prompt_mask": ones,
        "completion_ids": ones,
        "completion_mask": ones,
        "tool_mask": torch.tensor(MASK).long(),
        "advantages": torch.tensor(ADVANTAGES),
        "old_per_token_logps": torch.tensor(OLD),
        "ref_per_token_logps": torch.tensor(REFERENCE),
        "num_items_in_batch": torch.tensor(float(MASK.sum())),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    assert logprobs.grad is not None
    return float(loss.detach()), logprobs.grad.numpy()


def our_loss(token_loss, aggregate) -> tuple[float, np.ndarray]:
    def f(logprobs: jax.Array) -> jax.Array:
        total, count = aggregate(token_loss(logprobs))
        return total / count

    value, gradient = jax.value_and_grad(f)(jnp.asarray(LOGPROBS))
    return float(value), np.asarray(gradient)


OLD_, MASK_, IDS_ = jnp.asarray(OLD), jnp.asarray(MASK), jnp.asarray(IDS)
BY_TOKEN = jnp.broadcast_to(jnp.asarray(ADVANTAGES)[:, None], (B, T))
ROWS = MASK_, IDS_, B
CLIP = {"clip_low": 0.2, "clip_high": 0.28}


def ppo(logprobs: jax.Array, dual_clip: float | None = None) -> jax.Array:
    return policy_loss.clipped_surrogate(logprobs, OLD_, BY_TOKEN, dual_clip=dual_clip, **CLIP)[0]


def with_kl(logprobs: jax.Array) -> jax.Array:
    return ppo(logprobs) + 0.3 * kl.kl_k3(logprobs, jnp.asarray(REFERENCE))


def gspo(logprobs: jax.Array) -> jax.Array:
    return policy_loss.gspo(logprobs, OLD_, BY_TOKEN, *ROWS, **CLIP)[0]


def cispo(logprobs: jax.Array) -> jax.Array:
    return policy_loss.cispo(logprobs, OLD_, BY_TOKEN, clip_low=None, clip_high=0.28)[0]


def sapo(logprobs: jax.Array) -> jax.Array:
    taus = {"tau_positive": 1.0, "tau_negative": 1.05}
    return policy_loss.sapo(logprobs, OLD_, BY_TOKEN, **taus)[0]


def by_sequence(x: jax.Array):
    return aggregation.sequence_mean(x, *ROWS)


def by_token(x: jax.Array):
    return aggregation.token_mean(x, MASK_)


def by_constant(x: jax.Array):
    return aggregation.sequence_constant_mean(x, *ROWS, tokens=50.0)


@pytest.mark.parametrize(
    ("settings", "token_loss", "aggregate"),
    [
        ({"loss_type": "grpo"}, ppo, by_sequence),
        ({"loss_type": "bnpo"}, ppo, by_token),
        ({"loss_type": "dapo"}, ppo, by_token),
        ({"loss_type": "dr_grpo"}, ppo, by_constant),
        ({"loss_type": "dapo", "delta": 1.4}, lambda x: ppo(x, 1.4), by_token),
        ({"loss_type": "grpo", "beta": 0.3}, with_kl, by_sequence),
        ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, gspo, by_sequence),
        ({"loss_type": "cispo", "epsilon_high": 1.28}, cispo, by_token),  # TRL's is the cap itself
        ({"loss_type": "sapo"}, sapo, by_sequence),
    ],
    ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_loss_and_gradient_are_those_of_trl(settings, token_loss, aggregate):
    value, gradient = our_loss(token_loss, aggregate)
    wanted, wanted_gradient = trl_loss(**settings)
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-4, atol=1e-7)
