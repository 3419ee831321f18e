"""Shapes of the coefficient: by hand, and what all have in common."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.rewards import decay
from jaxtool.rewards.otc import r_tool_grpo, r_tool_ppo

SHAPES = [decay.cosine, decay.linear, decay.exponential]


def test_linear_by_hand():
    assert [decay.linear(m, 0, 3) for m in (0, 1, 3, 6, 7)] == pytest.approx([1, 5 / 6, 0.5, 0, 0])
    assert [decay.linear(m, 2, 3) for m in (2, 3, 5)] == pytest.approx([1, 5 / 6, 0.5])


def test_exponential_by_hand():
    assert [decay.exponential(m, 0, 2) for m in (0, 1, 2, 4)] == pytest.approx(
        [1, 0.5**0.5, 0.5, 0.25]
    )
    assert decay.exponential(3, 1, 2) == 0.5


def test_cosine_by_hand():
    """One call at c = 3: cos(π/5); with n = 1 two calls are sin(2π/3), whatever c."""
    assert decay.cosine(1, 0, 3) == pytest.approx(0.8090170)
    assert decay.cosine(2, 1, 3) == decay.cosine(2, 1, 9) == pytest.approx(0.8660254)


@pytest.mark.parametrize("shape", SHAPES)
@given(m=st.floats(0, 50), more=st.floats(0.01, 5), c=st.floats(0.5, 8))
def test_every_shape_starts_at_one_is_a_half_at_c_and_falls(shape, m, more, c):
    assert shape(0, 0, c) == 1.0
    assert shape(c, 0, c) == pytest.approx(0.5)
    assert 0 <= shape(m + more, 0, c) <= shape(m, 0, c) <= 1
    # Only the ratio counts: c is a unit of calls.
    assert shape(2 * m, 0, 2 * c) == pytest.approx(shape(m, 0, c))


@pytest.mark.parametrize("m", [0, 1, 2, 2.37, 7])
def test_the_cosine_is_equation_6_and_without_n_equation_5(m):
    assert decay.cosine(m, 0.0, 3.0) == r_tool_ppo(m, 3.0)
    assert decay.cosine(m, 2.0, 3.0) == r_tool_grpo(m, 2.0, 3.0)


@pytest.mark.parametrize("function", [decay.linear, decay.exponential])
def test_impossible_numbers_are_refused(function):
    with pytest.raises(ValueError, match="need m >= n >= 0 and c > 0: m=1 n=2"):
        function(1, 2, 3)
    with pytest.raises(ValueError, match="n=-1"):
        function(0, -1, 3)
    with pytest.raises(ValueError, match="c=0"):
        function(1, 0, 0)
