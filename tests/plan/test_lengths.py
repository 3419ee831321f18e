"""Spread of answers: moments by hand, live tokens, and the slowest of several hosts."""

import math

import pytest

from jaxtool.plan.lengths import Lengths, lengths_of, live_tokens, slowest_host

NO_LIMIT = 1e12


def test_moments_of_an_uncut_log_normal_by_hand():
    """σ² = 0.49: E[X²] / E[X]² = exp(0.49); a half of σ² is the problem's: exp(0.245) - 1."""
    found = lengths_of(1000, NO_LIMIT, spread=0.7, problem_share=0.5)
    assert found.square == pytest.approx(1e6 * math.exp(0.49), rel=1e-4)
    assert found.problem_variance == pytest.approx(1e6 * (math.exp(0.245) - 1), rel=1e-4)


def test_a_cut_keeps_the_mean_and_takes_from_the_spread():
    uncut = lengths_of(8192, NO_LIMIT, spread=0.7, problem_share=0.5)
    cut = lengths_of(8192, 16384, spread=0.7, problem_share=0.5)
    assert cut.mean == 8192
    assert 0 < cut.square - 8192**2 < 0.6 * (uncut.square - 8192**2)
    assert cut.square < 8192 * 16384  # E[X²] <= limit x E[X]


def test_equal_answers_have_no_spread():
    for found in (
        lengths_of(100, 200, spread=0.0, problem_share=0.5),
        lengths_of(200, 200, spread=0.7, problem_share=0.5),
    ):
        assert (found.problem_variance, found.sample_variance) == (0.0, 0.0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_of_the_variance_may_be_one_parts(share):
    found = lengths_of(1000, NO_LIMIT, spread=0.5, problem_share=share)
    whole = 1e6 * (math.exp(0.25) - 1)
    assert found.problem_variance == pytest.approx(share * whole, rel=1e-4, abs=1)
    assert found.sample_variance == pytest.approx((1 - share) * whole, rel=1e-4, abs=1)


def test_live_tokens_by_hand():
    """Rows of 1 and 3 tokens: (1 x 0.5 + 3 x 1.5) / 4 = 1.25, and 10 of the prompt."""
    rows = Lengths(mean=2.0, problem_variance=0.0, sample_variance=1.0)
    assert live_tokens(rows, 10) == 11.25


def test_the_slowest_host_by_hand():
    """Deviation of a host's sum: sqrt((300 + 400 / 4) / 16) / 50 = 0.1; the median of the larger of 2 is
    Φ⁻¹(sqrt(0.5)) = 0.5450 deviations above the mean."""
    lengths = Lengths(mean=50.0, problem_variance=300.0, sample_variance=400.0)
    slowest = slowest_host(lengths, hosts=2, problems=16, samples=4, quantile=0.5)
    assert slowest == pytest.approx(1.05450, abs=1e-5)
    assert slowest_host(lengths, hosts=1, problems=16, samples=4, quantile=0.9) == 1.0
    wide = slowest_host(lengths, hosts=16, problems=16, samples=4, quantile=0.5)
    assert slowest < wide < slowest_host(lengths, hosts=16, problems=16, samples=4, quantile=0.9)
