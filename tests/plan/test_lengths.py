"""Spread of answers: moments by hand, live tokens, and the slowest of several hosts."""

import math

import numpy as np
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
    shape = {"problems": 16, "samples": 4, "by": "problems"}
    slowest = slowest_host(lengths, hosts=2, quantile=0.5, **shape)
    assert slowest == pytest.approx(1.05450, abs=1e-5)
    assert slowest_host(lengths, hosts=1, quantile=0.9, **shape) == 1.0
    wide = slowest_host(lengths, hosts=16, quantile=0.5, **shape)
    assert slowest < wide < slowest_host(lengths, hosts=16, quantile=0.9, **shape)


def test_samples_spread_over_hosts_leave_their_own_variance_by_hand():
    """Deviation of a host's sum: sqrt(400 / 64) / 50 = 0.05: the problems' 300 is the same on both hosts."""
    lengths = Lengths(mean=50.0, problem_variance=300.0, sample_variance=400.0)
    found = slowest_host(lengths, hosts=2, problems=16, samples=4, quantile=0.5, by="samples")
    assert found == pytest.approx(1.02725, abs=1e-5)


def test_the_slowest_of_sixteen_hosts_as_a_simulation_has_it():
    """32 problems a host of 16 samples, σ 0.7, half of the variance between problems: 1.11 to 1.16, and 1.03 to 1.04."""
    lengths = lengths_of(6985, 16384, spread=0.7, problem_share=0.5)
    rng, limit = np.random.default_rng(0), 16384
    own = 0.7 * np.sqrt(0.5)
    shape = {"hosts": 16, "problems": 32, "samples": 16, "quantile": 0.5}
    maxima = {"problems": [], "samples": []}
    for _ in range(40):
        z = own * rng.standard_normal((512, 1)) + own * rng.standard_normal((512, 16))
        x = np.minimum(limit, 6000 * np.exp(z))
        for by, sums in (("problems", x.reshape(32, 16, 16).sum((0, 2))), ("samples", x.sum(0))):
            maxima[by].append(sums.max() / sums.mean())
    for by, low, high in (("problems", 1.10, 1.17), ("samples", 1.02, 1.05)):
        formula = slowest_host(lengths, **shape, by=by)
        assert low < formula < high
        assert np.median(maxima[by]) == pytest.approx(formula, abs=0.015)
