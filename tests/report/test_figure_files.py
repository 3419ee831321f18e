"""Every chart and table of a report as files, out of the report or out of its page."""

import pytest
from helpers.answers import answer

from jaxtool.report.__main__ import main
from jaxtool.report.answer_pairs import AnswerPair, answer_text, fitting
from jaxtool.report.figure_files import report_of_page, write_figures
from jaxtool.report.page import Curve, Report, Section, Series, Table, write_report
from jaxtool.rundir.answer_records import Part

TABLE = Table(title="All", columns=("v", "x"), rows=(("a", 1.5), ("=b", None)), note="n")
CURVE = Curve(
    title="Accuracy over calls",
    x_label="x",
    y_label="y",
    series=(Series(name="a", xs=[1], ys=[0.5], x_intervals=[(0, 2)], y_intervals=[(0.4, 0.6)]),),
)
REPORT = Report(
    title="r",
    variants=("a",),
    sections=(
        Section(title="Test", tables=(TABLE, TABLE), curves=(CURVE,)),
        Section(title="test!", tables=(TABLE,)),
    ),
)
NAMES = ["test-all", "test-all-2", "test-all-3"]


def test_each_kind_goes_into_its_directory_under_one_name(tmp_path):
    files = write_figures(
        REPORT, svg=tmp_path / "a/svg", csv=tmp_path / "csv", latex=tmp_path / "tex"
    )
    assert sorted(p.stem for p in files if p.suffix == ".csv") == NAMES
    assert sorted(p.stem for p in files if p.suffix == ".tex") == NAMES
    assert [p.name for p in files if p.suffix == ".svg"] == ["test-accuracy_over_calls.svg"]
    assert (tmp_path / "csv" / "test-all.csv").read_bytes() == b"v,x\r\na,1.5\r\n'=b,\r\n"
    assert write_figures(REPORT) == []


def test_a_page_gives_the_files_of_its_report(tmp_path, capsys):
    page = write_report(tmp_path / "report.html", REPORT)
    assert report_of_page(page).sections[0].tables == (TABLE, TABLE)
    main([str(page), "--figures", str(tmp_path / "page")])
    assert "7 files in" in capsys.readouterr().out
    for file in write_figures(REPORT, **dict.fromkeys(("svg", "csv", "latex"), tmp_path / "own")):
        assert (tmp_path / "page" / file.name).read_bytes() == file.read_bytes()


def test_the_page_holds_what_its_buttons_save(tmp_path):
    text = write_report(tmp_path / "report.html", REPORT).read_text()
    assert r"v,x\r\na,1.5\r\n'=b,\r\n" in text
    assert r"\\toprule" in text


def test_what_is_no_page_is_refused_in_one_line(tmp_path, capsys):
    other = tmp_path / "other.html"
    other.write_text("<html></html>")
    for arguments, words in (
        ([str(other), "--figures", str(tmp_path)], "is no report"),
        ([str(other)], "say where its figures go, as --figures DIR"),
        ([str(tmp_path / "nowhere"), "--csv", str(tmp_path)], "nowhere"),
        ([str(write_report(tmp_path / "r.html", REPORT)), "--csv", str(other)], "other.html"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_damaged_page_is_named(tmp_path):
    page = write_report(tmp_path / "report.html", REPORT)
    page.write_text(page.read_text().replace('"columns"', '"colums"'))
    with pytest.raises(ValueError, match=r"report.html is a damaged report: KeyError\('columns'\)"):
        report_of_page(page)


def test_answers_side_by_side_are_bounded_and_say_what_is_cut():
    long = answer(parts=(Part(author="policy", text="x" * 30_000, tokens=9),), right=True)
    shown = answer_text(long, "base")
    assert "[... 10,000 characters ...]" in shown.parts[0][1]
    assert shown.facts[:2] == ("0 calls", "4 tokens")
    pair = AnswerPair(title="t", question="q", references=("1",), left=shown, right=shown)
    assert len(fitting([pair] * 5, max_chars=2 * pair.chars)) == 2
    assert len(fitting([pair] * 5, max_chars=1)) == 1
    assert fitting([]) == ()
