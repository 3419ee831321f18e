"""Equations 5-7 of OTC-PO against vectors worked out from the printed formulas."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.rewards import otc

CALLS = (0, 1, 2, 3, 4, 5, 6, 8)
# cos(mπ / (2m + c)) by c, and sin(πm / (m + n)) by n, for the calls above.
COSINES = {
    1: (1, 0.500, 0.309, 0.223, 0.174, 0.142, 0.121, 0.092),
    3: (1, 0.809, 0.623, 0.500, 0.415, 0.355, 0.309, 0.245),
    4: (1, 0.866, 0.707, 0.588, 0.500, 0.434, 0.383, 0.309),
    8: (1, 0.951, 0.866, 0.782, 0.707, 0.643, 0.588, 0.500),
}
SINES = {
    1: (0, 1, 0.866, 0.707, 0.588, 0.500, 0.434, 0.342),
    2: (0, 0.866, 1, 0.951, 0.866, 0.782, 0.707, 0.588),
    3: (0, 0.707, 0.951, 1, 0.975, 0.924, 0.866, 0.756),
    4: (0, 0.588, 0.866, 0.975, 1, 0.985, 0.951, 0.866),
}
COSINE_CASES = [(m, c, r) for c, row in COSINES.items() for m, r in zip(CALLS, row, strict=True)]
SINE_CASES = [(m, n, r) for n, row in SINES.items() for m, r in zip(CALLS, row, strict=True)]


@pytest.mark.parametrize(("m", "c", "expected"), COSINE_CASES)
def test_equation_5_vectors(m: int, c: int, expected: float):
    assert otc.r_tool_ppo(m, c) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize(("m", "c", "expected"), COSINE_CASES)
def test_equation_6_vectors_with_n_0(m: int, c: int, expected: float):
    assert otc.r_tool_grpo(m, 0, c) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize(("m", "n", "expected"), SINE_CASES)
def test_equation_6_vectors_with_calls_needed(m: int, n: int, expected: float):
    assert otc.r_tool_grpo(m, n, 4) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize(
    ("m", "n", "expected"), [(0, 0, 0), (3, 0, 3), (0, 2, 0), (2, 2, 2), (1, 3, 1.5), (6, 2, 3)]
)
def test_equation_6_mapping_by_hand(m: int, n: int, expected: float):
    assert otc.f(m, n) == expected


@pytest.mark.parametrize(
    ("base", "coefficient", "alpha", "expected"),
    [(1, 0.5, 1, 0.5), (1, 0.5, 2, 1), (0, 0.5, 2, 0), (-1, 0.1, 2, -1), (2, 1, 0.5, 1)],
)
def test_equation_7_scales_only_the_positive_part(
    base: float, coefficient: float, alpha: float, expected: float
):
    assert otc.scaled_reward(base, coefficient, alpha=alpha) == expected


@given(m=st.integers(0, 100), n=st.integers(0, 100), c=st.floats(0.1, 100))
def test_coefficient_is_between_0_and_1_and_largest_at_n(m: int, n: int, c: float):
    coefficient = otc.r_tool_grpo(m, n, c)
    assert 0 <= coefficient <= 1
    assert otc.r_tool_grpo(n, n, c) == 1
    assert otc.r_tool_grpo(m + n + 1, n, c) <= otc.r_tool_grpo(m + n, n, c)


@given(m=st.integers(1, 60), n=st.integers(1, 60))
def test_the_sine_branch_is_symmetric_and_its_left_side_penalises(m: int, n: int):
    assert otc.r_tool_grpo(m, n, 3) == pytest.approx(otc.r_tool_grpo(n, m, 3))
    assert otc.r_tool_grpo(m, n, 3) == pytest.approx(math.sin(math.pi * m / (m + n)))
    assert otc.r_tool_grpo(0, n, 3) == 0


@given(c=st.integers(1, 50))
def test_the_cosine_is_one_half_at_c(c: int):
    assert otc.r_tool_ppo(c, c) == pytest.approx(0.5)


@pytest.mark.parametrize(("m", "n", "c"), [(-1, 0, 3), (0, -1, 3), (1, 1, 0)])
def test_impossible_counts_are_refused(m: int, n: int, c: float):
    with pytest.raises(ValueError, match="need m >= 0, n >= 0 and c > 0"):
        otc.r_tool_grpo(m, n, c)
