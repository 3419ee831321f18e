"""What a policy does otherwise than another on the same questions: the shares of OTC-PO (2504.14870, Table 3).

  ME  more efficient   same verdict, fewer calls        MA  more accurate   right where the other is wrong
  LE  less efficient   same verdict, more calls         LA  less accurate   wrong where the other is right
  AE  more accurate and fewer calls, a part of MA       the rest: same verdict, as many calls

"Same verdict" is both right or both wrong. The paper says "same answer"; its ME of 86 % at 45 % accuracy, with MA, LA
and ME adding up to 99.6 %, leaves no other reading. With several answers to a question every answer of the one is
paired with every answer of the other, each question counts as 1; with one answer each this is the paper's share.
"""

import collections
import dataclasses
from collections.abc import Sequence

from jaxtool.behaviour.answers import judged
from jaxtool.behaviour.bootstrap import Interval, ratio_interval
from jaxtool.rundir.answer_records import AnswerRecord

SHARES = ("ME", "LE", "MA", "LA", "AE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BehaviourShares:
    """Of one policy against another."""

    questions: int  # that both answered
    left_out: int  # that one of them lost, or was not asked
    shares: dict[str, float]  # by SHARES
    intervals: dict[str, Interval | None]  # 95 %, over questions


def behaviour_shares(
    new: Sequence[AnswerRecord], old: Sequence[AnswerRecord]
) -> BehaviourShares | None:
    """Shares of `new` against `old`; None where they have no question in common.

    Args:
      new: answers of one policy under one condition.
      old: those of another policy, or under another condition.
    """
    ours, theirs = _by_question(new), _by_question(old)
    common = [question for question in ours if question in theirs]
    if not common:
        return None
    each = [question_shares(ours[question], theirs[question]) for question in common]
    ones = [1.0] * len(common)
    columns = {name: [shares[name] for shares in each] for name in SHARES}
    asked = {record.problem_id for record in (*new, *old)}
    return BehaviourShares(
        questions=len(common),
        left_out=len(asked) - len(common),
        shares={name: sum(column) / len(column) for name, column in columns.items()},
        intervals={name: ratio_interval(column, ones) for name, column in columns.items()},
    )


def question_shares(
    ours: Sequence[tuple[bool, int]], theirs: Sequence[tuple[bool, int]]
) -> dict[str, float]:
    """Shares among all pairs of answers to one question, each given as (is right, calls)."""
    counts: collections.Counter[str] = collections.Counter()
    ours_counted, theirs_counted = collections.Counter(ours), collections.Counter(theirs)
    for (is_right, calls), many in ours_counted.items():
        for (was_right, old_calls), as_many in theirs_counted.items():
            for name in _kinds(is_right, calls, was_right, old_calls):
                counts[name] += many * as_many
    return {name: counts[name] / (len(ours) * len(theirs)) for name in SHARES}


def _kinds(is_right: bool, calls: int, was_right: bool, old_calls: int) -> tuple[str, ...]:
    if is_right == was_right:
        return ("ME",) if calls < old_calls else ("LE",) if calls > old_calls else ()
    if was_right:
        return ("LA",)
    return ("MA", "AE") if calls < old_calls else ("MA",)


def _by_question(records: Sequence[AnswerRecord]) -> dict[str, list[tuple[bool, int]]]:
    found: dict[str, list[tuple[bool, int]]] = {}
    for record in judged(records):
        found.setdefault(record.problem_id, []).append((record.is_correct, record.num_calls))
    return found
