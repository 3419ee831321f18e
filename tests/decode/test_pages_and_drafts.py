"""A paged cache and drafts together give the tokens of neither."""

import dataclasses
import random

import pytest
from helpers.decoding import SMALL, assert_same_rows, make_engine, random_jobs, run_jobs
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.pages_config import PagesConfig

MODEL = dataclasses.replace(FAMILIES["qwen3"], num_layers=1)


@pytest.mark.parametrize("rounding", ["same_program", "exact"])
def test_pages_and_drafts_change_no_token(rounding):
    params = random_params(MODEL)
    drafts = DraftsConfig(columns=(4,), rounding=rounding, least_match=1, source_tokens=64)
    pages = PagesConfig(page_tokens=16, pool_tokens=6 * SMALL.max_tokens)
    plain = dataclasses.replace(SMALL, window_steps=8)
    engine = make_engine(MODEL, params, dataclasses.replace(plain, pages=pages, drafts=drafts))
    # In pairs with one prompt and one random stream: the later of two can guess all of the earlier.
    jobs = random_jobs(16, outputs=(2, 9, 4), seed=5)
    waits = random.Random(5)
    rows = run_jobs(engine, jobs, latency=lambda: waits.randrange(3))
    assert_same_rows(rows, run_jobs(make_engine(MODEL, params, plain), jobs))
    assert engine.counts.reprefilled_tokens == 0
    assert engine.counts.moved_rows > 0
    if rounding == "same_program":
        assert engine.drafting.counts.accepted > 0
