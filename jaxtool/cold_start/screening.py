"""Rows that cannot become demonstrations, found before a rewriter is paid for them."""

import dataclasses
from collections.abc import Sequence

from jaxtool.cold_start.candidates import Rejection, StepName
from jaxtool.cold_start.repeated import contamination, repetitions
from jaxtool.cold_start.source_rows import SourceRow
from jaxtool.cold_start.traces import Fault
from jaxtool.data.contamination import EvaluationQuestions
from jaxtool.judges.base import Judge


@dataclasses.dataclass(frozen=True, kw_only=True)
class Screened:
    """Rows to ask for, and those that fell out."""

    rows: tuple[SourceRow, ...]
    rejected: tuple[Rejection, ...]


def screen(
    rows: Sequence[SourceRow], *, judge: Judge, evaluation: EvaluationQuestions, near: float | None
) -> Screened:
    """Leaves out references that the judge cannot read, repeated questions, those of evaluation sets."""
    rejected: list[Rejection] = []

    def out(row: SourceRow, step: StepName, fault: Fault) -> None:
        rejected.append(
            Rejection(
                row_id=row.row_id,
                where=row.where,
                step=step,
                reason=fault.reason,
                detail=str(fault),
                question=row.question,
            )
        )

    fit = []
    for row in rows:
        if not row.answers:
            out(row, "answer", Fault("no_reference", "the row has no answer where the layout says"))
            continue
        unfit = judge.unfit(row.problem)
        if unfit is None:
            fit.append(row)
        else:
            told = f"the references {', '.join(map(repr, row.answers))} {unfit}"
            out(row, "answer", Fault("unfit_reference", told))
    faults = repetitions(
        [(row.question, row.reasoning, row.where) for row in fit], per_question=1, near=near
    )
    kept = []
    for row, repeated in zip(fit, faults, strict=True):
        found = contamination(row.question, evaluation) if repeated is None else repeated
        if found is None:
            kept.append(row)
        else:
            out(row, "contamination" if repeated is None else "repetition", found)
    return Screened(rows=tuple(kept), rejected=tuple(rejected))
