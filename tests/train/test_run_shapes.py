"""Shapes from lengths: the examples of the docstrings, and their edges."""

import pytest

from jaxtool.decode.config import EngineConfig
from jaxtool.train.run_shapes import (
    decoder_config,
    power_of_two,
    prompt_limit,
    rounded_down,
    rounded_up,
    row_tokens,
)


def test_rounding():
    assert (rounded_up(130, 64), rounded_up(128, 64), rounded_up(1, 64)) == (192, 128, 64)
    assert (rounded_down(130, 64), rounded_down(63, 64)) == (128, 0)
    assert [power_of_two(n) for n in (1, 2, 3, 130, 256)] == [1, 2, 4, 256, 256]


def test_one_prompt_that_is_an_exception_is_left_out():
    found = prompt_limit([100] * 199 + [4000])
    assert (found.tokens, found.longest, found.left_out) == (200, 4000, 1)
    assert found.long_prompts == "filter"


def test_the_longest_prompt_is_the_limit_where_none_is_an_exception():
    found = prompt_limit([90, 100, 150])
    assert (found.tokens, found.left_out, found.long_prompts) == (150, 0, "refuse")
    assert prompt_limit([7]).tokens == 7


def test_a_limit_that_is_given_counts_what_it_leaves_out():
    found = prompt_limit([10, 20, 30, 40], most=20)
    assert (found.tokens, found.left_out) == (20, 2)
    assert prompt_limit([10, 20], most=500).tokens == 20  # no row is longer than it must be


def test_rows_hold_prompt_and_response_and_divide_over_the_kernels_blocks():
    assert row_tokens(300, 3072, "tpu", parts=4) == 3584  # 7 x 512
    assert row_tokens(300, 3072, "gpu") == 3456  # 27 x 128
    assert row_tokens(100, 28, "cpu") == 128
    assert row_tokens(100, 29, "cpu") == 160


def test_the_decoder_of_an_accelerator_reads_one_view_and_prefills_few_long_rows():
    short = decoder_config(prompt_tokens=400, tokens=3584, kind="tpu", decode_rows=64)
    assert (short.min_view, short.views) == (3584, (3584,))
    assert short.prompt_buckets[0] == 256  # half of 512, the least power of two over 399
    assert (short.prefill_rows, short.append_rows, short.decode_rows) == (16, 16, 64)
    long = decoder_config(prompt_tokens=400, tokens=34816, kind="tpu", decode_rows=16)
    assert (long.prefill_rows, long.append_rows) == (8, 8)


def test_the_decoder_of_a_cpu_fits_itself():
    config = decoder_config(prompt_tokens=20, tokens=128, kind="cpu", most_rows=12)
    assert (config.decode_rows, config.most_decode_rows, config.views) == (0, 12, (128,))
    assert decoder_config(prompt_tokens=20, tokens=4096, kind="cpu").views[0] == 512


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_rows_divide_over_the_parts(parts):
    config = decoder_config(prompt_tokens=9, tokens=64, kind="gpu", row_parts=parts)
    assert config.prefill_rows % parts == 0
    assert isinstance(config, EngineConfig)
