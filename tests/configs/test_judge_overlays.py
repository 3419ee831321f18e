"""Each overlay of gin_configs/judges sets the judge of a run, and nothing else."""

import dataclasses
from pathlib import Path

import pytest

from jaxtool.config import loader
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice, TokenF1
from jaxtool.judges.unit_tests import UnitTests
from jaxtool.train.rl_config import RlConfig

CONFIGS = Path(__file__).parents[2] / "gin_configs"
RUN = CONFIGS / "runs" / "quickstart_grpo.gin"
JUDGES = {
    "exact_match": ExactMatch(),
    "token_f1": TokenF1(),
    "multiple_choice": MultipleChoice(),
    "unit_tests": UnitTests(),
}


def test_every_overlay_is_listed():
    assert {path.stem for path in (CONFIGS / "judges").glob("*.gin")} == set(JUDGES)


@pytest.mark.parametrize("name", JUDGES)
def test_an_overlay_chooses_the_judge(name):
    plain = loader.load(RlConfig, files=[RUN])
    assert plain.judge == Mathematics()
    chosen = loader.load(RlConfig, files=[RUN, CONFIGS / "judges" / f"{name}.gin"])
    assert chosen == dataclasses.replace(plain, judge=JUDGES[name])
