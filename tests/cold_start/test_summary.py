"""The table of what fell out: counts, samples, and nothing that acts on the terminal."""

import io

from rich.console import Console

from jaxtool.cold_start.candidates import Checked, Rejection
from jaxtool.cold_start.summary import print_summary, summary_of


def rejection(n, reason="stray_tag", detail="a [bold]tag[/bold] \x1b[31m"):
    return Rejection(
        row_id=f"f/{n}", where=f"f:{n}", step="form", reason=reason, detail=detail, question="q"
    )


def printed(summary):
    stream = io.StringIO()
    print_summary(summary, Console(file=stream, width=120))
    return stream.getvalue()


def test_counts_and_samples():
    rejected = (*map(rejection, range(3)), rejection(9, "no_answer"))
    checked = Checked(kept=(), rejected=rejected, lost=(), entered={})
    summary = summary_of(checked, [rejection(10, "no_answer")], [rejection(11)])
    assert summary.as_json() == {
        "rows": 6,
        "kept": 0,
        "calls": 0,
        "replaced_outputs": 0,
        "without_reference": 0,
        "rejected": 5,
        "lost": 1,
        "reasons": {"form/no_answer": 2, "form/stray_tag": 3},
    }
    text = printed(summary)
    assert "0 of 6 rows are demonstrations" in text
    assert "f/0: a [bold]tag[/bold]" in text
    assert "f/2" not in text  # two samples of each
    assert "\x1b" not in text
    assert "lost to the infrastructure: 1; the same command asks again" in text


def test_nothing_fell_out():
    text = printed(summary_of(Checked(kept=(), rejected=(), lost=(), entered={})))
    assert "0 of 0 rows are demonstrations" in text
    assert "reason" not in text
