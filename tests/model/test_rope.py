"""Scaled frequencies worked out by hand, through the forward pass, and where a policy is saved."""

import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES

from jaxtool.model.config import (
    LinearScaling,
    RopeScaling,
    YarnScaling,
    scaling_from_fields,
)
from jaxtool.model.layers import rotary_angles
from jaxtool.model.rope import attention_factor, rotary_frequencies

LLAMA3 = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
)


def test_linear_divides_every_frequency():
    assert rotary_frequencies(4, 100.0, LinearScaling(factor=4.0)) == pytest.approx([0.25, 0.025])
    assert attention_factor(LinearScaling(factor=4.0)) == 1.0


def test_yarn_by_hand():
    """H = 8, theta = 10,000, so pair i turns by 10^-i; 628.3185 = 200 pi tokens, factor 4.

    Pair i makes 100 / 10^i turns. 10 turns: pair 1, kept; 0.1 turns: pair 3, divided by 4; pair 2 is in the
    middle: 0.01 · (1/2 + 1/8).
    """
    yarn = YarnScaling(
        factor=4.0, original_max_position=628, beta_fast=9.9952, beta_slow=0.099952, truncates=False
    )
    expected = [1.0, 0.1, 0.01 * 0.625, 0.001 / 4]
    np.testing.assert_allclose(rotary_frequencies(8, 1e4, yarn), expected, rtol=1e-4)
    assert attention_factor(yarn) == pytest.approx(1.1386294, rel=1e-7)  # 0.1 · 1.386294 + 1


def test_borders_of_yarn_are_rounded_outwards():
    # 100 turns at pair 0: 20 turns are at pair log10(5) = 0.7, 5 turns at 1.3; outwards 0 and 2.
    yarn = YarnScaling(factor=2.0, original_max_position=628, beta_fast=20.0, beta_slow=5.0)
    expected = [1.0, 0.1 * 0.75, 0.01 / 2, 0.001 / 2]
    np.testing.assert_allclose(rotary_frequencies(8, 1e4, yarn), expected, rtol=1e-6)


def test_cos_and_sin_carry_the_attention_factor():
    yarn = YarnScaling(factor=4.0, original_max_position=64, attention_factor=1.5)
    config = dataclasses.replace(FAMILIES["qwen3"], rope_scaling=yarn)
    cos, sin = rotary_angles(jnp.array([[0, 3]]), config)
    np.testing.assert_allclose(cos[0, 0], 1.5)
    np.testing.assert_allclose(cos[0, 1, 0], 1.5 * math.cos(3.0), rtol=1e-6)
    np.testing.assert_allclose(sin[0, 1, 0], 1.5 * math.sin(3.0), rtol=1e-6)


@pytest.mark.parametrize(
    "scaling",
    [LLAMA3, LinearScaling(factor=2.0), YarnScaling(factor=4.0, original_max_position=32768)],
    ids=["llama3", "linear", "yarn"],
)
def test_a_saved_config_gives_back_its_scaling(scaling):
    assert scaling_from_fields(json.loads(json.dumps(dataclasses.asdict(scaling)))) == scaling


def test_fields_of_no_scaling_are_named():
    with pytest.raises(ValueError, match=r"'beta': 1.* is of no known kind"):
        scaling_from_fields({"factor": 2.0, "beta": 1})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearScaling(factor=0.5), "LinearScaling.factor must be >= 1"),
        (lambda: YarnScaling(factor=4.0, original_max_position=0), "original_max_position must be"),
        (
            lambda: YarnScaling(factor=4.0, original_max_position=64, beta_fast=1.0),
            "beta_fast=1.0 must be larger than beta_slow=1.0",
        ),
        (
            lambda: dataclasses.replace(
                FAMILIES["qwen3"],
                rope_theta=1.0,
                rope_scaling=YarnScaling(factor=4.0, original_max_position=64),
            ),
            "YaRN needs ModelConfig.rope_theta > 1, got 1.0",
        ),
    ],
    ids=["linear", "length", "borders", "theta"],
)
def test_scalings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
