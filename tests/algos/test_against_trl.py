"""Losses, gradients, advantages and DAPO's punishment against TRL's own, on random numbers. Skipped where TRL and
torch are not installed.

TRL computes losses and advantages inside its trainers; here these methods run on stand-ins that know the
settings and hand them log-probs or rewards. Checked with TRL 1.16.0.
"""

import types
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.algos import advantages, aggregation, kl, policy_loss
from jaxtool.rewards.terms import overlong_punishment

torch = pytest.importorskip("torch", reason="TRL's losses need torch: pip install -e '.[parity]'")
pytest.importorskip("trl", reason="the comparison needs TRL: pip install -e '.[parity]'")
pytestmark = pytest.mark.parity

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


GROUPS, G = 4, 5
REWARDS = NUMBERS.choice([-1.0, 0.0, 0.5, 1.0], (GROUPS, G)).astype(np.float32)
REWARDS[1] = 0.5  # nothing to learn
IS_VALID = np.ones((GROUPS, G), bool)
IS_VALID[2, 1:3] = IS_VALID[3, 0] = False
GROUP_IDS = np.repeat(np.arange(GROUPS, dtype=np.int32), G)


def trl_advantages(trainer_class: Any, **settings: Any) -> np.ndarray:
    """TRL's advantages of REWARDS, of which masked ones are those that no reward function could score."""
    trainer = mock.MagicMock()
    trainer.configure_mock(
        **{
            "num_generations": G,
            "pad_to_multiple_of": None,
            "mask_truncated_completions": False,
            "beta": 0.0,
            "reward_clip_range": None,
            "normalize_advantages": False,
            "reward_func_names": ["reward"],
            "reward_weights": torch.ones(1),
        }
        | settings
    )
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.process_index = 0
    trainer._tokenizer.pad_token_id = 0
    size = GROUPS * G
    texts = ["text"] * size
    trainer._generate.return_value = [[1]] * size, [[1, 2]] * size, texts
    logprobs = torch.zeros(size, 2), None, None
    trainer._get_per_token_logps_and_entropies.return_value = logprobs
    rewards = np.where(IS_VALID, REWARDS, np.nan).reshape(size, 1)
    trainer._calculate_rewards.return_value = torch.tensor(rewards)
    outputs = trainer_class._generate_and_score_completions(trainer, [{"prompt": "1"}] * size)
    return outputs["advantages"].numpy()


def test_leave_one_out_advantages_are_those_of_trls_rloo():
    from trl.trainer.rloo_trainer import RLOOTrainer

    wanted = trl_advantages(RLOOTrainer)
    batch = REWARDS.ravel(), GROUP_IDS, GROUPS, IS_VALID.ravel()
    got = advantages.leave_one_out_advantages(*batch)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("max_tokens", "cache_tokens"), [(20, 4), (100, 20), (7, 7)])
def test_overlong_punishment_is_that_of_trl(max_tokens, cache_tokens):
    from trl.rewards import get_soft_overlong_punishment

    lengths = range(max_tokens + 3)
    punish = get_soft_overlong_punishment(max_tokens, cache_tokens)
    wanted = punish(completion_ids=[[1] * length for length in lengths])
    assert {0, -1} < set(wanted)
    got = [overlong_punishment(length, max_tokens, cache_tokens) for length in lengths]
    assert got == pytest.approx(wanted)
