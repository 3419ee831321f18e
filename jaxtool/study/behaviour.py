"""Behaviour of policies out of the records of their answers: every measure, for JSON, tables and curves.

`behaviour(records)` takes the answers of any policies under any conditions. It measures each policy under each
condition, each policy against the first one under the same condition, and offloading where a policy answered with
tools and without any. The measures are in `jaxtool.behaviour`; docs/behaviour.md explains them.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtool.behaviour import code_use, searching, timing
from jaxtool.behaviour.answers import judged, queries, right, without_texts, wrong
from jaxtool.behaviour.call_need import use_against_need
from jaxtool.behaviour.corrections import corrections
from jaxtool.behaviour.offloading import THRESHOLD, offloading
from jaxtool.behaviour.purposes import purpose_shares
from jaxtool.behaviour.two_runs import behaviour_shares
from jaxtool.report.page import Curve, Table
from jaxtool.rundir.answer_files import Condition, iterate_answers, read_settings
from jaxtool.rundir.answer_records import AnswerRecord
from jaxtool.study import behaviour_tables
from jaxtool.study.behaviour_parts import Against, Measured, Offloaded, Values

Key = tuple[str, Condition]  # a policy under a condition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What `behaviour` found, in the order of the records."""

    measured: tuple[Measured, ...]
    against: tuple[Against, ...]
    offloading: tuple[Offloaded, ...]

    def as_json(self) -> dict[str, Any]:
        """{"measured": {policy: {way: fields of `Measured`}}, "against_first": {policy: {way: fields of
        `BehaviourShares` and "first"}}, "offloading": {policy: {way: fields of `Offloading`}}}.
        """
        found: dict[str, Any] = {"measured": {}, "against_first": {}, "offloading": {}}
        for one in self.measured:
            values = dataclasses.asdict(one)
            policy, way = values.pop("policy"), values.pop("way")
            found["measured"].setdefault(policy, {})[way] = values
        for pair in self.against:
            values = {"first": pair.first} | dataclasses.asdict(pair.found)
            found["against_first"].setdefault(pair.policy, {})[pair.way] = values
        for probed in self.offloading:
            values = dataclasses.asdict(probed.found)
            found["offloading"].setdefault(probed.policy, {})[probed.way] = values
        return found

    def tables(self) -> tuple[Table, ...]:
        """The tables that have rows."""
        return behaviour_tables.tables(self.measured, self.against, self.offloading)

    def curves(self) -> tuple[Curve, ...]:
        """Calls over the solve rate without tools; () where nobody was probed."""
        return behaviour_tables.curves(self.offloading)


def behaviour_of(workdir: str | Path) -> Behaviour:
    """Of a finished evaluation, out of its work directory, which is read chunk by chunk.

    Raises:
      FileNotFoundError, ValueError: as `answer_files.read_answers`.
    """
    chunks = iterate_answers(workdir)
    allowed = read_settings(workdir).max_lost_fraction
    return behaviour((record for chunk in chunks for record in chunk), max_lost_fraction=allowed)


def behaviour(
    records: Iterable[AnswerRecord],
    *,
    threshold: float = THRESHOLD,
    max_lost_fraction: float = 1.0,
) -> Behaviour:
    """Every measure that the records allow. They are read once, and their texts are not kept.

    Args:
      records: of any policies, conditions and levels.
      threshold: solve rate without tools from which on a call is needless.
      max_lost_fraction: a policy and condition that lost a larger share of answers has counts and no measures.
    """
    seen: dict[Key, _Seen] = {}
    for record in records:
        seen.setdefault((record.policy, _condition(record)), _Seen()).add(record)
    parts = {
        key: one.records for key, one in seen.items() if one.lost_fraction <= max_lost_fraction
    }
    first = next(iter(seen))[0] if seen else ""
    varied = {(condition.has_tools, condition.max_tool_calls) for _, condition in seen}

    def way(condition: Condition) -> str:
        return condition.sampling if len(varied) == 1 else condition.name

    against = [
        Against(policy=policy, first=first, way=way(condition), found=found)
        for (policy, condition), part in parts.items()
        if policy != first
        and (found := behaviour_shares(part, parts.get((first, condition), []))) is not None
    ]
    offloaded = [
        Offloaded(policy=policy, way=way(condition), found=found)
        for (policy, condition), part in parts.items()
        if condition.max_tool_calls  # who may not call offloads nothing
        and (found := offloading(part, _probes(parts, policy, condition), threshold=threshold))
        is not None
    ]
    return Behaviour(
        measured=tuple(
            (_measure if key in parts else _counted)(key[0], way(key[1]), one)
            for key, one in seen.items()
        ),
        against=tuple(against),
        offloading=tuple(offloaded),
    )


class _Seen:
    """The answers of a policy under a condition, and what only their texts tell."""

    def __init__(self) -> None:
        self.records: list[AnswerRecord] = []  # without texts
        self.places: list[list[timing.Place | None]] = []  # of judged ones
        self.evidence: list[searching.Evidence] = []  # of judged ones

    @property
    def lost_fraction(self) -> float:
        return sum(record.is_lost for record in self.records) / len(self.records)

    def add(self, record: AnswerRecord) -> None:
        self.records.append(without_texts(record))
        if not record.is_lost:
            self.places.append(timing.places(record))
            self.evidence.append(searching.evidence(record))


def _condition(record: AnswerRecord) -> Condition:
    return Condition(
        sampling=record.sampling,
        has_tools=record.has_tools,
        max_tool_calls=record.max_tool_calls,
    )


def _probes(
    parts: dict[Key, list[AnswerRecord]], policy: str, condition: Condition
) -> list[AnswerRecord]:
    """The answers of a policy without tools: sampled ones if there are any, else those sampled as with tools.

    One greedy answer says solved or not; a solve rate needs sampled ones.
    """
    found: dict[str, list[AnswerRecord]] = {}
    for (name, probe), part in parts.items():
        if name == policy and not probe.has_tools:
            found.setdefault(probe.sampling, []).extend(part)
    return found.get("sampled", found.get(condition.sampling, []))


def _counted(policy: str, way: str, seen: _Seen) -> Measured:
    """Counts alone: too many answers are lost."""
    return Measured(
        policy=policy,
        way=way,
        answers=len(judged(seen.records)),
        lost=len(seen.records) - len(judged(seen.records)),
    )


def _measure(policy: str, way: str, seen: _Seen) -> Measured:
    kept = judged(seen.records)
    return Measured(
        policy=policy,
        way=way,
        answers=len(kept),
        lost=len(seen.records) - len(kept),
        response_tokens=code_use.response_tokens(kept),
        policy_tokens=code_use.policy_tokens(kept),
        calls=_calls(kept, seen.places),
        code=_code(kept),
        purposes=purpose_shares(kept) or None,
        searches=_searches(kept, seen.evidence),
        need=use_against_need(kept),
    )


def _calls(
    records: Sequence[AnswerRecord], placed: Sequence[Sequence[timing.Place | None]]
) -> Values | None:
    executed = code_use.executed_ratio(records)
    if executed is None:
        return None
    return {
        "executed": executed,
        "first_position": timing.first_call_position(records),
        "position": timing.call_position(records),
        "first_start": timing.first_start(placed),
        "before_answer": timing.before_answer_ratio(placed),
    }


def _code(records: Sequence[AnswerRecord]) -> Values | None:
    if not code_use.with_code(records):
        return None
    mended = corrections(records)
    return {
        "code_ratio": code_use.code_ratio(records),
        "accuracy_with_code": code_use.accuracy(code_use.with_code(records)),
        "accuracy_without_code": code_use.accuracy(code_use.without_code(records)),
        "lines_per_answer": code_use.lines_per_answer(records),
        "lines_per_program": code_use.lines_per_program(records),
        "ok_programs": code_use.ok_programs(records),
        "pass_ratio": code_use.pass_ratio(records),
        "pass_ratio_right": code_use.pass_ratio(right(records)),
        "pass_ratio_wrong": code_use.pass_ratio(wrong(records)),
        "last_pass_ratio_right": code_use.last_pass_ratio(right(records)),
        "last_pass_ratio_wrong": code_use.last_pass_ratio(wrong(records)),
        "failed_programs": mended.failed,
        "recovered": mended.recovered_rate,
        "self_corrected": mended.self_correction_rate,
        "same_error_again": mended.same_error_rate,
        "given_up": mended.given_up_rate,
    }


def _searches(
    records: Sequence[AnswerRecord], evidence: Sequence[searching.Evidence]
) -> Values | None:
    if not any(queries(record) for record in records):
        return None
    support = searching.support(evidence)
    return {
        "search_ratio": searching.search_ratio(records),
        "queries_per_answer": searching.queries_per_answer(records),
        "words_per_query": searching.words_per_query(records),
        "repeated": searching.repeated_ratio(records),
        "empty": searching.empty_ratio(evidence),
        "reference_found": support.found,
        "accuracy_if_found": support.right_if_found,
        "accuracy_if_not_found": support.right_if_not_found,
        "grounded": support.grounded,
    }
