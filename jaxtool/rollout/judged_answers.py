"""What figures need of a judged answer, whether it is in memory or in an evaluation's files.

Knows no text and no token.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from jaxtool.core.types import Group, Sample, ToolStatus, Trajectory
from jaxtool.rundir.answer_records import AnswerRecord


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JudgedAnswer:
    """One answer; where it is lost only problem and level count."""

    problem_id: str
    level: str
    is_lost: bool
    is_correct: bool
    is_lenient: bool | None  # right by the judge's more lenient rule; None: it reports none
    calls: Mapping[
        str, int
    ]  # that got an observation, by tool; tools that it did not call are not there
    failed: Mapping[str, int]  # of these: ended in an error or at a limit
    lost_to: str = ""  # who failed where it is lost: a tool's name, or "judge"

    @property
    def num_calls(self) -> int:
        return sum(self.calls.values())


def of_groups(groups: Iterable[Group]) -> list[JudgedAnswer]:
    """Group after group."""
    return [_of_sample(sample) for group in groups for sample in group.samples]


def of_records(records: Iterable[AnswerRecord]) -> list[JudgedAnswer]:
    """In their order."""
    return [_of_record(record) for record in records]


def by_problem(answers: Iterable[JudgedAnswer]) -> dict[str, list[JudgedAnswer]]:
    """The answers to each problem, problems in order of first appearance."""
    found: dict[str, list[JudgedAnswer]] = {}
    for answer in answers:
        found.setdefault(answer.problem_id, []).append(answer)
    return found


def kept(answers: Iterable[JudgedAnswer]) -> list[JudgedAnswer]:
    """Those that came back."""
    return [answer for answer in answers if not answer.is_lost]


def calls_by_tool(trajectory: Trajectory, *, failed: bool = False) -> dict[str, int]:
    """Calls of one trajectory that got an observation, by tool; tools that it did not call are not there.

    Args:
      failed: only those that ended in an error or at a limit.
    """
    return _counted([(call.tool, call.result.status) for call in trajectory.tool_calls], failed)


def _of_sample(sample: Sample) -> JudgedAnswer:
    trajectory = sample.trajectory
    return JudgedAnswer(
        problem_id=trajectory.problem.problem_id,
        level=trajectory.problem.level,
        is_lost=sample.is_masked,
        is_correct=bool(sample.is_correct),
        is_lenient=None if sample.verdict is None else sample.verdict.is_lenient,
        calls=calls_by_tool(trajectory),
        failed=calls_by_tool(trajectory, failed=True),
        lost_to=trajectory.lost_to,
    )


def _of_record(record: AnswerRecord) -> JudgedAnswer:
    calls = [(call.tool, call.status) for call in record.calls]
    return JudgedAnswer(
        problem_id=record.problem_id,
        level=record.level,
        is_lost=record.is_lost,
        is_correct=record.is_correct,
        is_lenient=record.is_lenient,
        calls=_counted(calls, False),
        failed=_counted(calls, True),
        lost_to=record.lost_to,
    )


def _counted(calls: Sequence[tuple[str, str]], only_failed: bool) -> dict[str, int]:
    """Calls, given as (tool, status), by tool."""
    return dict(
        collections.Counter(
            tool for tool, status in calls if not (only_failed and status == ToolStatus.OK)
        )
    )
