"""The invariants of a TrainBatch: each one is refused when broken."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import ledger
from helpers.targets import with_advantages, with_rewards

from jaxtool.rollout.batching import PackConfig, to_batch

PACKED = to_batch([ledger("QQpp")], PackConfig(row_tokens=6))
GOOD = with_rewards(with_advantages(PACKED, [1.0]), [1.0])


def changed(name: str, column: int, value: float):
    array = getattr(GOOD, name).copy()
    array[0, column] = value
    return dataclasses.replace(GOOD, **{name: array})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed("loss_mask", 5, True), "covers padding"),
        (changed("loss_mask", 0, True), "a first token"),
        (changed("trajectory_ids", 5, 0), "disagree about padding"),
        (changed("advantages", 0, 1.0), "TrainBatch.advantages is not 0 off"),
        (changed("behaviour_logprobs", 1, -1.0), "TrainBatch.behaviour_logprobs is not 0 off"),
        (changed("token_rewards", 1, 1.0), "TrainBatch.token_rewards is not 0 off"),
        (changed("advantages", 2, np.nan), "not finite"),
        (changed("token_rewards", 3, np.inf), "not finite"),
        (dataclasses.replace(GOOD, loss_mask=np.zeros_like(GOOD.loss_mask)), "covers no token"),
        (dataclasses.replace(GOOD, positions=GOOD.positions[:, :-1]), "TrainBatch.positions"),
    ],
)
def test_a_broken_batch_is_refused(broken, message):
    GOOD.check()
    PACKED.check()
    with pytest.raises(ValueError, match=message):
        broken.check()
