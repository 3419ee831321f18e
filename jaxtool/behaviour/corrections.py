"""What follows a program that failed. ReTool (2504.11536, section 3.3) shows self-correction by an example and defines
no rate; these are ours.

A program failed if it raised or broke a limit. Its successor is the next program of the same answer, whatever stands
between them. All rates are over failed programs, also those without a successor. With the state of a session a repair
may be a short program that shares nothing with the failed one: `recovered` counts it, `repaired` does not.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Sequence

from jaxtool.behaviour.answers import is_ok, judged, programs, share
from jaxtool.rundir.answer_records import AnswerRecord

REPAIR_OVERLAP = 0.5  # from which on two programs are versions of one
_LEXEME = re.compile(r"\w+|[^\w\s]")
_MAX_CHARS = 20_000  # of a program that are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corrections:
    """Counts; their rates are None where nothing failed."""

    failed: int  # programs
    recovered: int  # their successor ran
    repaired: int  # their successor ran and is another version of them
    same_error: int  # their successor failed with the same error type
    given_up: int  # no program came after them

    @property
    def recovered_rate(self) -> float | None:
        """P(successor runs | failed)."""
        return share(self.recovered, self.failed)

    @property
    def self_correction_rate(self) -> float | None:
        """P(successor runs and is a version of it | failed)."""
        return share(self.repaired, self.failed)

    @property
    def same_error_rate(self) -> float | None:
        """P(successor fails with the same error | failed)."""
        return share(self.same_error, self.failed)

    @property
    def given_up_rate(self) -> float | None:
        """P(no successor | failed)."""
        return share(self.given_up, self.failed)


def corrections(records: Sequence[AnswerRecord]) -> Corrections:
    """Over all programs of judged answers."""
    failed = recovered = repaired = same_error = given_up = 0
    for record in judged(records):
        run = programs(record)
        for call, successor in itertools.zip_longest(run, run[1:]):
            if is_ok(call):
                continue
            failed += 1
            if successor is None:
                given_up += 1
            elif is_ok(successor):
                recovered += 1
                repaired += is_version(successor.code, call.code)
            else:
                same_error += (successor.status, successor.error_type) == (
                    call.status,
                    call.error_type,
                )
    return Corrections(
        failed=failed,
        recovered=recovered,
        repaired=repaired,
        same_error=same_error,
        given_up=given_up,
    )


def is_version(one: str, other: str) -> bool:
    """Whether two programs differ and share at least `REPAIR_OVERLAP` of their lexemes."""
    return one != other and overlap(one, other) >= REPAIR_OVERLAP


def overlap(one: str, other: str) -> float:
    """2 |A ∩ B| / (|A| + |B|) of the multisets of lexemes (Dice 1945). "print(x)", "print(y)": 2 · 3 / 8 = 0.75."""
    a, b = (collections.Counter(_LEXEME.findall(text[:_MAX_CHARS])) for text in (one, other))
    return 2 * (a & b).total() / max(1, a.total() + b.total())
