"""Rows in which equal prompts stand once: by hand, and nothing lost, doubled or too long."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import ledger
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.core.types import ToolStatus
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.packing import Segment, pack, pack_shared


def test_rows_with_a_shared_prompt_by_hand():
    """The example of `pack_shared`: 10 of 12 tokens, where three copies of the prompt would take 16."""
    rows = pack_shared([5, 6, 7, 5], ["a", "a", "b", "a"], [3, 3, 3, 3], 12)
    assert rows == [
        [
            Segment(trajectory=1, stop=3, is_prefix=True),
            Segment(trajectory=1, start=3, stop=6, prefix=1),
            Segment(trajectory=0, start=3, stop=5, prefix=1),
            Segment(trajectory=3, start=3, stop=5, prefix=1),
        ],
        [Segment(trajectory=2, stop=7)],
    ]


def test_a_prompt_stands_once_in_each_row_that_its_group_needs():
    """Prompt of 4, five responses of 3; rows of 10 hold 3 + 4 + ... of them: 3 shared + one copied token each."""
    rows = pack_shared([7] * 5, ["a"] * 5, [3] * 5, 12)
    assert [[s.is_prefix for s in row] for row in rows] == [[True, False, False]] * 2 + [[False]]
    assert [sum(s.num_tokens for s in row) for row in rows] == [11, 11, 7]


def test_prompts_of_one_token_have_nothing_to_share():
    rows = pack_shared([3, 3], ["a", "a"], [0, 0], 8)
    assert rows == [[Segment(trajectory=0, stop=3), Segment(trajectory=1, stop=3)]]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), min_size=1, max_size=40),
    st.integers(12, 40),
)
def test_every_token_stands_once_and_sharing_never_takes_more_rows_than_tokens_need(made, capacity):
    prompts = [prompt for prompt, _ in made]
    shared = [prompt for prompt, _ in made]  # prompt number n has n + 1 tokens
    lengths = [prompt + 1 + response for prompt, response in made]
    rows = pack_shared(lengths, prompts, shared, capacity)
    seen = {i: np.zeros(length, int) for i, length in enumerate(lengths)}
    for row in rows:
        assert sum(s.num_tokens for s in row) <= capacity
        prefixes = [prompts[s.trajectory] for s in row if s.is_prefix]
        assert len(set(prefixes)) == len(prefixes)
        for s in row:
            if s.is_prefix:
                assert sum(o.prefix == row.index(s) + 1 for o in row) >= 2
                continue
            seen[s.trajectory][s.start : s.stop] += 1
            if s.prefix:
                before = row[s.prefix - 1]
                assert row.index(s) >= s.prefix
                assert before.is_prefix
                assert (before.start, before.stop) == (0, s.start)
                assert prompts[before.trajectory] == prompts[s.trajectory]
                seen[s.trajectory][: s.start] += 1
    assert all((count == 1).all() for count in seen.values())
    assert len(rows) <= 2 * -(-sum(lengths) // capacity)


def test_a_trajectory_longer_than_a_row_is_refused_where_prompts_are_shared():
    with pytest.raises(ValueError, match=r"9 tokens does not fit PackConfig.row_tokens=8"):
        pack_shared([9], ["a"], [2], 8)


def test_a_batch_with_a_shared_prompt_by_hand():
    """Prompt 10 11 12 once without its last token, which begins both responses; another prompt is alone."""
    one = ledger("QQQpp", first_id=10)
    two = ledger("QQQpttp", calls=[ToolStatus.OK], first_id=10)
    other = ledger("QQp", first_id=30)
    batch = to_batch([one, other, two], PackConfig(row_tokens=16, shares_prompts=True))
    assert batch.tokens.tolist() == [[10, 11, 12, 13, 14, 15, 16, 12, 13, 14, 30, 31, 32, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 0, 1, 2, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[1] * 2 + [2] * 5 + [3] * 3 + [4] * 3 + [0] * 3]
    assert batch.prefix_ids.tolist() == [[0] * 2 + [1] * 8 + [0] * 6]
    assert batch.trajectory_ids.tolist() == [[-1] * 2 + [2] * 5 + [0] * 3 + [1] * 3 + [-1] * 3]
    mask = [[0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 0]]
    assert batch.loss_mask.astype(int).tolist() == mask
    assert np.count_nonzero(batch.behaviour_logprobs) == 5
    apart = to_batch([one, other, two], PackConfig(row_tokens=16))
    assert apart.prefix_ids is None
    assert apart.loss_mask.sum() == batch.loss_mask.sum()


def test_a_prefix_behind_what_continues_it_is_refused():
    made = [ledger("QQp"), ledger("QQpp")]
    batch = to_batch(made, PackConfig(row_tokens=8, shares_prompts=True))
    assert batch.prefix_ids.tolist() == [[0, 1, 1, 1, 1, 1, 0, 0]]
    late = np.where(batch.segment_ids == 2, 3, batch.prefix_ids)
    chained = np.where(batch.segment_ids == 3, 2, batch.prefix_ids)
    for prefixes in (late, chained):
        with pytest.raises(ValueError, match=r"row 0 continues segment .* whole in front of it"):
            dataclasses.replace(batch, prefix_ids=prefixes.astype(np.int32)).check()


def test_without_equal_prompts_rows_hold_the_same_segments_as_without_sharing():
    lengths = [4, 8, 2, 4]
    rows = pack_shared(lengths, range(4), [1] * 4, 10)
    apart = [[Segment(trajectory=i, stop=lengths[i]) for i in row] for row in pack(lengths, 10)]
    assert rows == apart
