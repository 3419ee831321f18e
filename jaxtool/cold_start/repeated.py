"""Why a question falls out for what others say: earlier rows, evaluation sets."""

import collections
from collections.abc import Sequence

from jaxtool.cold_start.traces import Fault
from jaxtool.data.contamination import EvaluationQuestions
from jaxtool.data.near_duplicates import near_duplicates
from jaxtool.data.problem_rows import question_hash


def repetitions(
    rows: Sequence[tuple[str, str, str]], *, per_question: int, near: float | None
) -> list[Fault | None]:
    """Why each of (question, response, where) repeats an earlier one; None: it does not."""
    keys = [question_hash(question) for question, _, _ in rows]
    firsts = {key: i for i, key in reversed(list(enumerate(keys)))}
    order = sorted(firsts.values())
    texts = [rows[i][0] for i in order]
    twins: list[int | None] = [None] * len(order)
    if near is not None:
        twins = near_duplicates(texts, threshold=near)
    like = {keys[i]: twin for i, twin in zip(order, twins, strict=True)}
    seen: set[tuple[str, str]] = set()
    count: collections.Counter[str] = collections.Counter()
    faults: list[Fault | None] = []
    for key, (_, response, _) in zip(keys, rows, strict=True):
        twin = like[key]
        if (key, response) in seen:
            fault = Fault("same_row", "question and response are those of an earlier row")
        elif twin is not None:
            fault = Fault("near_question", f"the question is nearly that of {rows[order[twin]][2]}")
        elif count[key] >= per_question:
            fault = Fault("same_question", f"the question of {rows[firsts[key]][2]}")
        else:
            fault = None
            count[key] += 1
        seen.add((key, response))
        faults.append(fault)
    return faults


def contamination(question: str, evaluation: EvaluationQuestions) -> Fault | None:
    """The evaluation question that a question holds, as a reason."""
    match = evaluation.match(question)
    if match is None:
        return None
    told = f"{match.covered:.0%} of the words of {match.where}, such as {match.shared!r}"
    return Fault("in_evaluation", told)
