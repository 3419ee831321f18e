"""What may change on a resume: each name exists, and a longer run says what becomes of its learning rate."""

import dataclasses
import math
import re

import pytest

from docs.commands import classes
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.config.settings import changes, settings_of
from jaxtool.learn.optimizer import Cosine, OptimizerConfig
from jaxtool.train import resume_rules
from jaxtool.train.resume_rules import MAY_CHANGE, resume_lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    data: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    schedule: Schedule
    optimizer: OptimizerConfig
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def run_of(steps, total=None, warmup=0, data=1):
    decay = None if total is None else Cosine(total_steps=total, end_fraction=0.1)
    optimizer = OptimizerConfig(learning_rate=1e-3, warmup_steps=warmup, decay=decay)
    return Run(schedule=Schedule(steps=steps), optimizer=optimizer, mesh=MeshConfig(data=data))


def said(before, now, update):
    old, new = settings_of(before), settings_of(now)
    optimizers = {"optimizer": now.optimizer}
    lines = resume_lines(
        changes(old, new), old, optimizers, update=update, last_update=now.schedule.steps
    )
    return lines[len(changes(old, new)) :], lines


def test_every_name_is_one_that_gin_knows():
    known = classes()
    for name in MAY_CHANGE:
        owner, _, field = name.partition(".")
        assert owner in known, name
        assert field == "*" or field in known[owner], name


def test_the_document_lists_just_these():
    text = (REPOSITORY_ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    table = text.partition("## What may change")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([A-Z]\w+\.(?:\w+|\*))`", table)) == MAY_CHANGE


def test_groups_do_not_overlap():
    groups = ("LENGTH", "LOGS", "SERVERS", "LAYOUT")
    assert sum(len(vars(resume_rules)[group]) for group in groups) == len(MAY_CHANGE)


def test_a_longer_cosine_says_the_rate_before_and_after():
    """At update 100 of 100 the cosine has fallen to a tenth; of 200 it is half way: (1 + 0.1) / 2."""
    rates, _ = said(run_of(100, total=100), run_of(200, total=200), update=100)
    assert math.isclose(1e-3 * (1 + 0.1) / 2, 5.5e-4)
    assert rates == [
        "optimizer: the learning rate of update 100 is 0.00055, along a cosine to update 200; by the "
        "schedule until now it was 0.0001"
    ]


def test_a_cosine_that_ended_is_said_to_stay_where_it_is():
    rates, _ = said(run_of(100, total=100), run_of(200, total=100), update=100)
    assert rates == [
        "optimizer: its cosine ends at update 100 of 200; the learning rate stays at 0.0001 from there. "
        "Cosine.total_steps may be raised"
    ]


def test_a_constant_rate_needs_no_words():
    rates, lines = said(run_of(100), run_of(200), update=100)
    assert rates == []
    assert lines == ["changed: Schedule.steps: 100 -> 200"]


def test_a_warm_up_that_was_shortened_is_said_when_it_comes_back():
    rates, _ = said(run_of(3, warmup=2), run_of(40, warmup=20), update=3)
    assert len(rates) == 1
    assert "by the schedule until now it was 0.001" in rates[0]


@pytest.mark.parametrize("data", [1, 2])
def test_another_layout_is_equal_up_to_rounding_and_says_so(data):
    _, lines = said(run_of(3), run_of(4, data=data), update=2)
    assert any("up to rounding" in line for line in lines) == (data == 2)
