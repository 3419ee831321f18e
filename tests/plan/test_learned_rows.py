"""What a plan takes the learner to read: shared prompts once a row, and rows of several trajectories."""

import dataclasses

import pytest
from helpers.small_runs import rl_config

from jaxtool.plan.step import Assumptions, learned_tokens, packed_row


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
