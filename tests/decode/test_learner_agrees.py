"""Log-probs of truncated draws: what the learner computes from its own forward pass."""

import jax
import numpy as np
import pytest
from helpers.decoding import make_engine, random_jobs, run_jobs
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.core.batch import TrainBatch
from jaxtool.decode.sampling import Sampling
from jaxtool.learn.state import batch_logprobs
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rollout.batching import empty_batch

MODEL = FAMILIES["qwen3"]
WAYS = (
    Sampling(top_k=5),
    Sampling(top_p=0.8),
    Sampling(min_p=0.5, temperature=1.5),
    Sampling(top_k=20, top_p=0.9, min_p=0.02, temperature=0.7),
)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def engine(params):
    return make_engine(MODEL, params)


_logprobs = jax.jit(
    batch_logprobs, static_argnames=("model", "temperature", "truncation", "chunk", "sharding")
)


def learned(params, rows, sampling) -> list[np.ndarray]:
    """The learner's log-probs of whole rows, one row of the batch each."""
    batch: TrainBatch = empty_batch(len(rows), 64)
    for b, row in enumerate(rows):
        batch.tokens[b, : len(row.ids)] = row.ids
        batch.positions[b, : len(row.ids)] = np.arange(len(row.ids))
        batch.segment_ids[b, : len(row.ids)] = 1
    logprobs, _ = _logprobs(
        params,
        batch,
        model=MODEL,
        temperature=sampling.temperature,
        truncation=sampling.truncation,
        chunk=16,
        sharding=single_device(),
    )
    return [np.asarray(logprobs[b, : len(row.ids)]) for b, row in enumerate(rows)]


@pytest.mark.parametrize("sampling", WAYS)
def test_the_learner_computes_the_logprob_of_the_distribution_sampled_from(
    engine, params, sampling
):
    """Equal to rounding, unless a token at the very edge is kept by one pass and cut by the other."""
    rows = list(
        run_jobs(engine, random_jobs(16, outputs=(3,), seed=40), sampling=sampling).values()
    )
    gaps, plain_gaps = [], []
    whole = Sampling(temperature=sampling.temperature)
    for row, mine, plain in zip(
        rows, learned(params, rows, sampling), learned(params, rows, whole), strict=True
    ):
        got = np.asarray(row.logprobs)
        is_policy = ~np.isnan(got)
        gaps += np.abs(got - mine)[is_policy].tolist()
        plain_gaps += np.abs(got - plain)[is_policy].tolist()
        assert np.isfinite(mine[is_policy]).all()
    assert len(gaps) > 60
    assert np.quantile(gaps, 0.97) < 1e-4
    assert max(gaps) < 0.5
    assert np.mean(plain_gaps) > 0.02, "without the truncation they would not agree"


def test_a_policy_that_has_moved_still_gives_the_drawn_token_a_finite_logprob(engine, params):
    sampling = Sampling(top_k=2)
    rows = list(run_jobs(engine, random_jobs(16, seed=41), sampling=sampling).values())
    moved = learned(random_params(MODEL, seed=1), rows, sampling)
    values = np.concatenate(
        [x[~np.isnan(row.logprobs)] for x, row in zip(moved, rows, strict=True)]
    )
    assert np.isfinite(values).all()
    assert values.min() < -3, "some drawn tokens are outside the moved policy's two"
