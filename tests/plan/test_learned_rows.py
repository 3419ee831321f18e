"""What a plan takes the learner to read: shared prompts once a row, and rows of several trajectories."""

import dataclasses

import pytest
from helpers.small_runs import rl_config

from jaxtool.plan.packed_rows import filled_share
from jaxtool.plan.step import Assumptions, default_assumptions, learned_tokens, packed_row


def test_shared_prompts_are_learned_once_a_row(tmp_path):
    """8 samples of 12 tokens to a prompt of 11, rows of 64: (64 - 10) / 13 = 4 samples share a copy."""
    config = rl_config(tmp_path)
    assumed = Assumptions(response_tokens=12, prompt_tokens=11, tool_calls=0)
    pack = dataclasses.replace(config.pack, row_tokens=64, shares_prompts=True)
    config = dataclasses.replace(config, pack=pack)
    assert learned_tokens(config, assumed) == 2 * (2 * 10 + 8 * 13)
    apart = dataclasses.replace(pack, shares_prompts=False)
    assert learned_tokens(dataclasses.replace(config, pack=apart), assumed) == 16 * 23
    # Rows that hold one sample have nothing to share.
    short = dataclasses.replace(pack, row_tokens=32)
    assert learned_tokens(dataclasses.replace(config, pack=short), assumed) == 16 * 23


def test_a_packed_row_by_hand(tmp_path):
    """Rows of 64 with answers of 12 to prompts of 4: 16 tokens are a quarter; 3.6 of them at 90 %."""
    config = rl_config(tmp_path)
    pack = dataclasses.replace(config.pack, row_tokens=64)
    config = dataclasses.replace(config, pack=pack)
    assumed = Assumptions(response_tokens=12, prompt_tokens=4, tool_calls=0, length_spread=0)
    row = packed_row(config, assumed)
    assert row is not None
    assert (row.count, row.mean, row.square) == pytest.approx((3.6, 0.25, 0.0625))
    spread = packed_row(config, dataclasses.replace(assumed, length_spread=0.5))
    assert spread is not None
    assert spread.square >= row.square
    shared = dataclasses.replace(pack, shares_prompts=True)
    assert packed_row(dataclasses.replace(config, pack=shared), assumed) is None


EQUAL = {"problems": 2, "samples": 2, "response_tokens": 5.0, "limit": 10, "spread": 0.0}


@pytest.mark.parametrize(
    ("fields", "share"),
    [
        ({"prompt_tokens": 2.0}, 28 / 32),  # two of 7 in a row of 16
        ({"prompt_tokens": 3.0}, 1.0),
        ({"prompt_tokens": 4.0}, 36 / 64),  # 9 tokens: one a row
        # One copy of 3 of a prompt's 4 tokens, and twice its last with an answer: 3 + 6 + 6 of 16.
        ({"prompt_tokens": 4.0, "shares_prompts": True}, 30 / 32),
    ],
)
def test_how_full_rows_are_by_hand(fields, share):
    assert filled_share(row_tokens=16, problem_share=0.5, **(EQUAL | fields)) == pytest.approx(
        share
    )


def test_unequal_answers_fill_longer_rows_better(tmp_path):
    """As with 512 x 16 answers of a mean of 8192: 97 % of rows of the longest's size, 99.5 % of two such."""
    shape = {"problems": 64, "samples": 16, "prompt_tokens": 16.0, "response_tokens": 512.0}
    shape |= {"limit": 1024, "spread": 0.7, "problem_share": 0.5}
    short, long = (filled_share(row_tokens=tokens, **shape) for tokens in (1152, 2304))
    assert 0.95 < short < long < 1
    # That is what a plan assumes.
    config = rl_config(tmp_path)
    found = default_assumptions(config)
    own = {"problems": 2, "samples": 8, "row_tokens": config.pack.row_tokens}
    own |= {"prompt_tokens": found.prompt_tokens, "response_tokens": found.response_tokens}
    limit = config.rollout.max_response_tokens
    assert found.packed_share == filled_share(limit=limit, spread=0.7, problem_share=0.5, **own)
