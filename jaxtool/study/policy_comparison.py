"""Policies of finished evaluations against the first of them: pairs, differences, behaviour. What `compare` computes.

Answers are read from the files, nothing is asked again. Not covered: how it is shown (`paired_tables`,
`side_by_side`).
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from jaxtool.behaviour.two_runs import SHARES, BehaviourShares, behaviour_shares
from jaxtool.rollout.answer_table import check_rests_on_enough, table_of
from jaxtool.rundir.answer_files import Condition, read_answers
from jaxtool.rundir.answer_records import AnswerRecord
from jaxtool.study.compared_sides import Side, Source, check_settings, shared_conditions
from jaxtool.study.intervals import holm
from jaxtool.study.paired_answers import Pairing, pair_answers
from jaxtool.study.paired_figures import Differences, differences


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """One policy against the first, under one condition."""

    new: str  # names of the sides
    old: str
    condition: Condition
    seeds: tuple[Pairing, ...]
    found: Differences
    behaviour: tuple[BehaviourShares, ...]  # of each seed
    p_holm: float  # the test's p-value, corrected for how many comparisons there are

    @property
    def title(self) -> str:
        """`last against base, greedy_calls_4`."""
        return f"{self.new} against {self.old}, {self.condition.name}"

    @property
    def questions(self) -> int:
        """Pairs of all seeds."""
        return sum(len(seed.pairs) for seed in self.seeds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyComparison:
    sides: tuple[Side, ...]
    conditions: tuple[Condition, ...]
    compared: tuple[Compared, ...]  # policy by policy, condition by condition
    answers: dict[tuple[str, Condition], tuple[list[AnswerRecord], ...]]  # side, condition -> seeds
    notes: tuple[str, ...]  # what differs, and what could not be compared; a line each

    def as_json(self) -> dict[str, Any]:
        """See the docstring of `experiments.compare`."""
        return {
            "sides": {side.name: [str(source) for source in side.seeds] for side in self.sides},
            "notes": list(self.notes),
            "compared": [_as_json(one) for one in self.compared],
        }


def compare_policies(sides: Sequence[Side], may_differ: Collection[str] = ()) -> PolicyComparison:
    """Every side but the first against the first, under every condition that all share.

    Raises:
      ValueError: settings or questions differ, an evaluation is not finished, or too many answers are lost; one line.
    """
    conditions, alone = shared_conditions(sides)
    differing = check_settings(sides, conditions, may_differ)
    answers = {
        (side.name, condition): tuple(_read(source, condition) for source in side.seeds)
        for side in sides
        for condition in conditions
    }
    first, *others = sides
    compared = [
        _compare(other, first, condition, answers) for other in others for condition in conditions
    ]
    corrected = holm({str(i): one.found.test.p for i, one in enumerate(compared)})
    return PolicyComparison(
        sides=tuple(sides),
        conditions=tuple(conditions),
        compared=tuple(
            dataclasses.replace(one, p_holm=corrected[str(i)]) for i, one in enumerate(compared)
        ),
        answers=answers,
        notes=(*differing, *alone),
    )


def _read(source: Source, condition: Condition) -> list[AnswerRecord]:
    records = read_answers(source.workdir, source.policy, condition)
    what = f"{source}, {condition.name}"
    check_rests_on_enough(table_of(records), source.settings.max_lost_fraction, what)
    return records


def _compare(
    new: Side,
    old: Side,
    condition: Condition,
    answers: dict[tuple[str, Condition], tuple[list[AnswerRecord], ...]],
) -> Compared:
    seeds = []
    ours, theirs = answers[new.name, condition], answers[old.name, condition]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        names = str(new.seeds[i]), str(old.seeds[i])
        pairing = pair_answers(a, b, names=names)
        if not pairing.pairs:
            raise ValueError(
                f"{names[0]} and {names[1]}, {condition.name}: of no question both have every answer, "
                f"{pairing.with_lost} lost some; evaluate again"
            )
        seeds.append(pairing)
    found = differences(seeds)
    shares = [behaviour_shares(one.records("new"), one.records("old")) for one in seeds]
    return Compared(
        new=new.name,
        old=old.name,
        condition=condition,
        seeds=tuple(seeds),
        found=found,
        behaviour=tuple(one for one in shares if one is not None),
        p_holm=found.test.p,
    )


def _as_json(one: Compared) -> dict[str, Any]:
    test = dataclasses.asdict(one.found.test) | {"p_holm": one.p_holm}
    return {
        "new": one.new,
        "old": one.old,
        "condition": one.condition.name,
        "seeds": len(one.seeds),
        "questions": one.questions,
        "questions_with_lost": sum(seed.with_lost for seed in one.seeds),
        "questions_only_new": sum(seed.only_new for seed in one.seeds),
        "questions_only_old": sum(seed.only_old for seed in one.seeds),
        "figures": {name: dataclasses.asdict(change) for name, change in one.found.changes.items()},
        "test": test,
        "behaviour": {
            name: sum(seed.shares[name] for seed in one.behaviour) / len(one.behaviour)
            for name in SHARES
        },
        "flipped": [
            {
                "seed": i,
                "problem_id": pair.problem_id,
                "old": [answer.is_correct for answer in pair.old],
                "new": [answer.is_correct for answer in pair.new],
            }
            for i, seed in enumerate(one.seeds)
            for pair in seed.pairs
            if pair.gain
        ],
    }
