"""Over-use and under-use of tools where the fewest calls are known.

OTC-PO (2504.14870, section 2) assumes that a question and a policy have a smallest number of calls, and names calls
beyond it cognitive offloading. The made-up tasks know it by level. A mean of calls alone hides over-use behind
under-use, so the two are apart.
"""

from collections.abc import Sequence

from jaxtool.behaviour.answers import judged
from jaxtool.data.arithmetic import LEVELS, MENTAL_LEVELS
from jaxtool.data.facts import FEWEST_CALLS
from jaxtool.rundir.answer_records import AnswerRecord

# Programs that a calculated level takes.
CALCULATIONS = {"hard": 1, "chained": 2}
KNOWN_LEVELS = frozenset((*LEVELS, *FEWEST_CALLS))


def over_use(made: Sequence[float], needed: Sequence[float]) -> float:
    """Σ max(made - needed, 0) / answers. Made 2, 0 where 1, 1 are needed: 0.5.

    Raises:
      ValueError: the two differ in length, or are empty.
    """
    if not made:
        raise ValueError("over-use of no answers")
    return sum(max(m - n, 0) for m, n in zip(made, needed, strict=True)) / len(made)


def under_use(made: Sequence[float], needed: Sequence[float]) -> float:
    """Σ max(needed - made, 0) / answers: over-use with the two exchanged."""
    return over_use(needed, made)


def calls_needed(level: str) -> int:
    """Calls that a level takes, for a policy that knows easy sums, or what it was taught of facts, by heart.

    Raises:
      ValueError: nobody knows it of this level.
    """
    if level not in KNOWN_LEVELS:
        raise ValueError(f"level {level!r}: the fewest calls are known of {sorted(KNOWN_LEVELS)}")
    if level in FEWEST_CALLS:
        return sum(FEWEST_CALLS[level])
    return 0 if level in MENTAL_LEVELS else CALCULATIONS[level]


def use_against_need(records: Sequence[AnswerRecord]) -> dict[str, float] | None:
    """{"needed", "over_use", "under_use"} in calls an answer; None where a level's need is not known."""
    kept = judged(records)
    if not kept or any(record.level not in KNOWN_LEVELS for record in kept):
        return None
    needed = [calls_needed(record.level) for record in kept]
    made = [record.num_calls for record in kept]
    return {
        "needed": sum(needed) / len(needed),
        "over_use": over_use(made, needed),
        "under_use": under_use(made, needed),
    }
