"""Shapes of the coefficient: by hand, and what all have in common."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.rewards import decay
from jaxtool.rewards.otc import r_tool_ppo

SHAPES = ["cosine", "linear", "exponential"]


def test_linear_by_hand():
    assert [decay.linear(m, 3) for m in (0, 1, 3, 6, 7)] == pytest.approx([1, 5 / 6, 0.5, 0, 0])


def test_exponential_by_hand():
    assert [decay.exponential(m, 2) for m in (0, 1, 2, 4)] == pytest.approx(
        [1, 0.5**0.5, 0.5, 0.25]
    )


def test_decayed_by_hand():
    """One call at c = 3: cos(π/5), 1 - 1/6 and the third root of a half."""
    got = [decay.decayed(1, 3, shape) for shape in ("cosine", "linear", "exponential")]
    assert got == pytest.approx([0.8090170, 0.8333333, 0.7937005])


@pytest.mark.parametrize("shape", SHAPES)
@given(m=st.floats(0, 50), more=st.floats(0.01, 5), c=st.floats(0.5, 8))
def test_every_shape_starts_at_one_is_a_half_at_c_and_falls(shape, m, more, c):
    assert decay.decayed(0, c, shape) == 1.0
    assert decay.decayed(c, c, shape) == pytest.approx(0.5)
    assert 0 <= decay.decayed(m + more, c, shape) <= decay.decayed(m, c, shape) <= 1
    # Only the ratio counts: c is a unit of calls.
    assert decay.decayed(2 * m, 2 * c, shape) == pytest.approx(decay.decayed(m, c, shape))


def test_the_cosine_is_equation_5():
    assert decay.decayed(2, 3, "cosine") == r_tool_ppo(2, 3)


@pytest.mark.parametrize("function", [decay.linear, decay.exponential])
def test_impossible_numbers_are_refused(function):
    with pytest.raises(ValueError, match="need m >= 0 and c > 0: m=-1"):
        function(-1, 3)
    with pytest.raises(ValueError, match="c=0"):
        function(1, 0)
