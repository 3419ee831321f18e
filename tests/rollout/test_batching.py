"""Packing by hand, and every token exactly once."""

import numpy as np
import pytest
from helpers.ledgers import ledger
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.core.types import FinishReason, Origin, ToolStatus
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.packing import pack


def test_first_fit_decreasing_by_hand():
    """Capacity 10; lengths 4 8 1 4 2 1 sorted: 8 (row 0), 4 4 (row 1), 2 (row 0), 1 1 (row 1)."""
    assert pack([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]


@given(st.lists(st.integers(1, 12), max_size=40))
def test_every_trajectory_is_packed_once_and_no_row_overflows(lengths):
    rows = pack(lengths, 12)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 12 for row in rows)
    assert len(rows) <= 2 * -(-sum(lengths) // 12)


def test_a_batch_by_hand():
    one = ledger("QQppttp", calls=[ToolStatus.OK], first_id=10)
    two = ledger("Qpp", first_id=30)
    batch = to_batch([two, one], PackConfig(row_tokens=12))
    assert batch.tokens.tolist() == [[10, 11, 12, 13, 14, 15, 16, 30, 31, 32, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 0]]
    assert batch.segment_ids.tolist() == [[1] * 7 + [2] * 3 + [0, 0]]
    assert batch.trajectory_ids.tolist() == [[1] * 7 + [0] * 3 + [-1, -1]]
    mask = [[0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0]]
    assert batch.loss_mask.astype(int).tolist() == mask
    assert (batch.advantages, batch.token_rewards) == (None, None)
    np.testing.assert_allclose(
        batch.behaviour_logprobs, [[0, 0, -0.1, -0.2, 0, 0, -0.3, 0, -0.1, -0.2, 0, 0]], atol=1e-7
    )


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 4)), min_size=1))
def test_every_token_lands_once_with_its_mask(shapes):
    made = [
        ledger(
            "Q" * q + "p" * p + "t" * t + "p" * (t > 0),
            calls=[ToolStatus.OK] * (t > 0),
            first_id=100 * i,
        )
        for i, (q, p, t) in enumerate(shapes)
    ]
    batch = to_batch(made, PackConfig(row_tokens=16))
    for i, trajectory in enumerate(made):
        at = batch.trajectory_ids == i
        assert batch.tokens[at].tolist() == trajectory.ids.tolist()
        assert batch.positions[at].tolist() == list(range(len(trajectory.ids)))
        assert (batch.loss_mask[at] == (trajectory.origins == Origin.POLICY)).all()
        assert len(np.unique(np.flatnonzero(at.any(axis=1)))) == 1
    assert (batch.trajectory_ids >= 0).sum() == sum(len(t.ids) for t in made)


def test_masked_trajectories_are_absent():
    lost = ledger("Qpp", reason=FinishReason.INFRASTRUCTURE, first_id=50)
    batch = to_batch([lost, ledger("Qp")], PackConfig(row_tokens=8))
    assert 50 not in batch.tokens
    assert set(np.unique(batch.trajectory_ids)) == {-1, 1}


def test_a_trajectory_longer_than_a_row_is_refused_by_name():
    with pytest.raises(ValueError, match=r"9 tokens does not fit PackConfig.row_tokens=8"):
        to_batch([ledger("Q" + "p" * 8)], PackConfig(row_tokens=8))


def test_a_batch_without_a_policy_token_is_refused():
    with pytest.raises(ValueError, match="the loss mask covers no token"):
        to_batch([ledger("QQ")], PackConfig(row_tokens=8))
    lost = ledger("Qp", reason=FinishReason.INFRASTRUCTURE)
    with pytest.raises(ValueError, match="the loss mask covers no token"):
        to_batch([lost], PackConfig(row_tokens=8))
