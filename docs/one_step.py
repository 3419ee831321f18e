"""One step of GRPO with a tool, in the functions that the system uses and without options.

  python -m docs.one_step

A policy of two layers answers one prompt eight times. Token 1 calls the tool, which answers with token 2. An answer is
right if its last token is 3. Run it, then read it from top to bottom; the real loop is jaxtool/train/rl_loop.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtool.algos.advantages import group_advantages
from jaxtool.algos.aggregation import token_mean
from jaxtool.algos.policy_loss import clipped_surrogate
from jaxtool.core.types import Origin
from jaxtool.model import transformer
from jaxtool.model.config import tiny
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.parallel.axis_rules import single_device

VOCAB, CALL, OUTPUT, RIGHT = 8, 1, 2, 3
G, T, PROMPT = 8, 12, [4, 5]  # samples of the problem, tokens of a trajectory, the question
MODEL, DEVICE, ADAM = tiny(VOCAB), single_device(), optax.adam(2e-2)


def rollout(params, key):
    """Token ids [G, T], their origins [G, T] and the log-probs with which they were sampled [G, T]."""
    ids = np.tile(np.array(PROMPT + [0] * (T - len(PROMPT)), np.int32), (G, 1))
    origins, behaviour = np.full((G, T), Origin.PROMPT, np.int8), np.zeros((G, T), np.float32)
    cache, layers = make_cache(MODEL, G, T), transformer.unstack_layers(params)
    for t in range(T - 1):
        # 1. One token goes through the policy; its keys and values stay in the cache for good.
        token, at = ids[:, t : t + 1], jnp.full((G, 1), t, jnp.int32)
        hidden, cache = transformer.cached_hidden_states(
            layers, MODEL, token, at, cache, view=T, sharding=DEVICE
        )
        if t + 1 < len(PROMPT):
            continue  # the next token is given by the prompt
        # 2. The policy draws its next token. Its log-prob is written down now, and never computed again.
        scores = transformer.logits(layers, MODEL, hidden[:, 0])
        drawn = np.asarray(jax.random.categorical(jax.random.fold_in(key, t), scores))
        known = np.asarray(jax.nn.log_softmax(scores))[np.arange(G), drawn]
        # 3. Behind a call the tool writes, not the policy: its token enters the same cache.
        is_tool = (ids[:, t] == CALL) & (origins[:, t] == Origin.POLICY)
        ids[:, t + 1] = np.where(is_tool, OUTPUT, drawn)
        origins[:, t + 1] = np.where(is_tool, Origin.TOOL, Origin.POLICY)
        behaviour[:, t + 1] = np.where(is_tool, 0.0, known)
    return ids, origins, jnp.asarray(behaviour)


def step(params, state, key):
    """New parameters and optimizer state, the mean reward, and the largest difference of the two log-probs."""
    ids, origins, behaviour = rollout(params, key)
    # 4. A reward for each answer, and from the rewards of the group each answer's advantage.
    rewards, group = (ids[:, -1] == RIGHT).astype(np.float32), np.zeros(G, np.int32)
    each = group_advantages(rewards, group, 1, np.ones(G, bool), normalizes_by_std=True)
    # 5. Only tokens of the policy are trained: the mask comes from origins, not from text.
    mask, advantages = jnp.asarray(origins == Origin.POLICY), jnp.tile(each[:, None], (1, T))
    positions, segments = jnp.tile(jnp.arange(T), (G, 1)), jnp.ones((G, T), jnp.int32)

    def loss(params):
        hidden = transformer.hidden_states(params, MODEL, ids, positions, segments, DEVICE)
        logprobs, _ = token_logprobs(
            hidden, params["embedding"], ids, temperature=1.0, chunk=T, is_table=True
        )
        token_loss, _ = clipped_surrogate(
            logprobs, behaviour, advantages, clip_low=0.2, clip_high=0.28, dual_clip=None
        )
        total, count = token_mean(token_loss, mask)
        # 6. Sampler and learner are one forward pass: what is left is rounding.
        return total / count, jnp.max(jnp.abs(logprobs - behaviour) * mask)

    (_, gap), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    updates, state = ADAM.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, float(rewards.mean()), float(gap)


def main(steps: int = 20) -> list[float]:
    """Mean rewards of the steps."""
    params, rewards = transformer.init_params(MODEL, jax.random.key(0)), []
    state = ADAM.init(params)
    for i in range(steps):
        params, state, reward, gap = step(params, state, jax.random.key(i + 1))
        print(f"step {i:2}  reward {reward:.3f}  largest difference of log-probs {gap:.1e}")
        rewards.append(reward)
    return rewards


if __name__ == "__main__":
    main()
