"""What fell out and why, as records and as a table for a terminal, with samples."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jaxtool.cold_start.candidates import Checked, Rejection
from jaxtool.cold_start.chat_wire import one_line

_SAMPLES = 2  # of each reason
_SHOWN_CHARS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """Counts of a set of rows, all that fell out together."""

    rows: int
    kept: int
    calls: int  # of those kept
    replaced: int  # outputs of those kept that their author wrote otherwise
    without_reference: int  # of those kept
    rejected: tuple[Rejection, ...]
    lost: tuple[Rejection, ...]

    def as_json(self) -> dict[str, Any]:
        """Counts, and under `reasons` for each "step/reason" how many fell out for it."""
        counts = collections.Counter(f"{row.step}/{row.reason}" for row in self.rejected)
        return {
            "rows": self.rows,
            "kept": self.kept,
            "calls": self.calls,
            "replaced_outputs": self.replaced,
            "without_reference": self.without_reference,
            "rejected": len(self.rejected),
            "lost": len(self.lost),
            "reasons": dict(sorted(counts.items())),
        }


def summary_of(
    checked: Checked, before: Sequence[Rejection] = (), lost: Sequence[Rejection] = ()
) -> Summary:
    """The counts.

    Args:
      before: rows that fell out before there were candidates.
      lost: rows that the endpoint did not answer.
    """
    fallen, gone = (*before, *checked.rejected), (*lost, *checked.lost)
    return Summary(
        rows=len(checked.kept) + len(fallen) + len(gone),
        kept=len(checked.kept),
        calls=sum(len(each.trace.calls) for each in checked.kept),
        replaced=sum(each.replaced for each in checked.kept),
        without_reference=checked.without_reference,
        rejected=fallen,
        lost=gone,
    )


def print_summary(summary: Summary, console: Console) -> None:
    """A table of reasons with a sample of each; nothing that a row holds acts on the terminal."""
    table = Table()
    for name in ("step", "reason", "rows", "such as"):
        table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
    groups: dict[tuple[str, str], list[Rejection]] = collections.defaultdict(list)
    for rejection in summary.rejected:
        groups[rejection.step, rejection.reason].append(rejection)
    for rejection in summary.lost:
        groups[rejection.step, "lost, nothing is known"].append(rejection)
    for (step, reason), rows in groups.items():
        samples = [
            f"{row.row_id}: {one_line(row.detail)[:_SHOWN_CHARS]}" for row in rows[:_SAMPLES]
        ]
        table.add_row(step, reason, str(len(rows)), escape("\n".join(samples)))
    console.print(f"{summary.kept} of {summary.rows} rows are demonstrations")
    if groups:
        console.print(table)
    per_row = summary.calls / summary.kept if summary.kept else 0.0
    console.print(f"calls: {summary.calls}, {per_row:.2f} a demonstration")
    if summary.replaced:
        console.print(f"outputs that were written otherwise and replaced: {summary.replaced}")
    if summary.without_reference:
        console.print(
            f"without a reference, so that the answer was compared with nothing: {summary.without_reference}"
        )
    if summary.lost:
        console.print(
            f"lost to the infrastructure: {len(summary.lost)}; the same command asks again"
        )
