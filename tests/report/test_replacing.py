"""A page with more in it is not replaced by one with less."""

import pytest

from jaxtool.report import page, run_page
from jaxtool.report.__main__ import main
from jaxtool.report.replacing import lost_by, write_beside_richer
from jaxtool.rundir import metrics

TABLE = page.Table(title="All levels", columns=("a",), rows=((1,),))
RESULTS = page.Section(title="Untouched test set", tables=(TABLE,))
REWARD = page.Section(title="reward")
RICH = page.Report(
    title="t",
    headlines=(page.Headline(label="OTC against GRPO", value="-80 %"),),
    sections=(RESULTS, REWARD),
)
LOST = [
    "the headline 'OTC against GRPO'",
    "the section 'Untouched test set'",
    "the table 'All levels'",
]


@pytest.fixture
def workdir(tmp_path):
    """A directory with a run, and a page of more than the run's files."""
    with metrics.MetricsWriter(tmp_path / "grpo") as writer:
        writer.write(0, {"reward/mean": 0.5})
    page.write_report(tmp_path / "report.html", RICH)
    return tmp_path


def test_the_command_refuses_and_names_what_would_be_lost(workdir, capsys):
    before = (workdir / "report.html").read_bytes()
    with pytest.raises(SystemExit):
        main([str(workdir)])
    said = capsys.readouterr().err
    assert f"holds what the files of the run do not: {', '.join(LOST)}; write beside it" in said
    assert (workdir / "report.html").read_bytes() == before
    main([str(workdir), "--output", str(workdir / "other.html")])
    assert (workdir / "other.html").exists()
    main([str(workdir), "--force"])
    assert (workdir / "report.html").read_bytes() != before
    main([str(workdir)])  # its own page is not richer


def test_a_run_that_ends_writes_beside_a_richer_page_and_says_so(workdir, capsys):
    path = workdir / "report.html"
    poorer = run_page.report_of_workdir(workdir)
    assert write_beside_richer(path, poorer) == workdir / "report_of_run.html"
    assert "it stays, and this page is beside it" in capsys.readouterr().out
    assert lost_by(path, RICH) == []
    assert lost_by(workdir / "none.html", poorer) == []


def test_a_page_of_something_else_is_not_overwritten(workdir):
    (workdir / "report.html").write_text("<p>my notes</p>")
    assert lost_by(workdir / "report.html", RICH) == ["a page that is no report"]
