"""`python -m experiments.compare`: files and page of finished evaluations, and what it refuses in one line."""

import csv
import dataclasses
import json
import sys

import pytest
from helpers.answers import answer, write_evaluation

from jaxtool.cli import compare
from jaxtool.report.figure_files import report_of_page
from jaxtool.rundir.answer_files import Condition
from jaxtool.rundir.answer_records import Part
from jaxtool.study.compared_sides import parse_sides
from jaxtool.study.paired_tables import flipped
from jaxtool.study.policy_comparison import compare_policies

HOSTILE = "=cmd|'x'!A0 \x1b[2J [red]& 50%"
GREEDY = Condition(sampling="greedy", has_tools=True, max_tool_calls=2)


def evaluation(workdir, policies=("base", "last"), questions=6, **settings):
    """`base` is right on even questions with one call, every other policy on all but the first without any."""
    workdir.mkdir()
    records = [
        answer(
            policy,
            q,
            right=q % 2 == 0 if policy == "base" else q > 0,
            calls=int(policy == "base"),
            sampling="greedy",
            final_answer=HOSTILE if q == 0 else str(q),
            level=("easy", "hard")[q % 2],
            parts=(Part(author="policy", text=f"{HOSTILE} of {policy}", tokens=4),),
        )
        for policy in policies
        for q in range(questions)
    ]
    write_evaluation(workdir, records, conditions=(GREEDY,), **settings)
    return str(workdir)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    compare.main()


def test_two_policies_of_one_evaluation(tmp_path, monkeypatch, capsys):
    run_dir = evaluation(tmp_path / "eval")
    run(
        *(monkeypatch, f"{run_dir}:base", f"{run_dir}:last", "--show", 1),
        *("--json", tmp_path / "c.json", "--html", tmp_path / "c.html"),
        *("--csv", tmp_path / "f", "--latex", tmp_path / "f", "--svg", tmp_path / "f"),
    )
    printed = capsys.readouterr().out
    assert "last against base, greedy_calls_2" in printed
    assert "\x1b[2J" not in printed
    assert "[red]" in printed  # no markup
    found = json.loads((tmp_path / "c.json").read_text())
    [one] = found["compared"]
    assert found["sides"] == {"base": [f"{run_dir}:base"], "last": [f"{run_dir}:last"]}
    accuracy, calls = one["figures"]["accuracy"], one["figures"]["tool_calls"]
    assert (accuracy["old"], accuracy["new"]) == pytest.approx((3 / 6, 5 / 6))
    assert (calls["old"], calls["new"], calls["difference"]) == (1, 0, -1)
    assert one["figures"]["tool_productivity"]["new"] is None
    # Better: 1, 3, 5; worse: 0. Four differ: 2 · (C(4, 0) + C(4, 1)) / 16.
    assert (one["test"]["better"], one["test"]["worse"], one["test"]["p"]) == (3, 1, 10 / 16)
    # 2 and 4: the same verdict, fewer calls. 1, 3, 5 are gained with fewer calls, 0 is lost.
    assert one["behaviour"] == pytest.approx(
        {"ME": 2 / 6, "LE": 0, "MA": 3 / 6, "LA": 1 / 6, "AE": 3 / 6}
    )
    assert [row["problem_id"] for row in one["flipped"]] == ["q0", "q1", "q3", "q5"]
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert "overview-accuracy_over_calls_greedy.svg" in names
    assert "last_against_base_greedy_calls_2-differences.tex" in names
    with open(
        tmp_path / "f" / "last_against_base_greedy_calls_2-questions_that_flipped.csv", newline=""
    ) as file:
        header, first, *_ = csv.reader(file)
    assert header[:4] == ["question", "level", "base right", "last right"]
    assert first[0] == "q0"
    assert first[6].startswith("'=cmd")
    page = report_of_page(tmp_path / "c.html")
    assert [curve.title for curve in page.sections[0].curves] == ["Accuracy over calls, greedy"]
    assert page.variants == ("base", "last")
    text = (tmp_path / "c.html").read_text()
    assert '"name":"last","is_correct":false' in text  # q0 side by side


def test_seeds_are_joined_by_commas_and_all_policies_by_the_directory(tmp_path):
    dirs = [evaluation(tmp_path / f"e{i}", ("base", "last", "otc")) for i in range(2)]
    found = compare_policies(
        parse_sides([f"b={dirs[0]}:base,{dirs[1]}:base", f"l={dirs[0]}:last,{dirs[1]}:last"])
    )
    [one] = found.compared
    assert (one.new, one.old, len(one.seeds), one.questions) == ("l", "b", 2, 12)
    assert [i for i, _ in flipped(one)] == [0, 1, 0, 0, 0, 1, 1, 1]
    assert [pair.gain for _, pair in flipped(one)] == [-1, -1, 1, 1, 1, 1, 1, 1]
    whole = compare_policies(parse_sides([dirs[0]]))
    assert [(one.new, one.old) for one in whole.compared] == [("last", "base"), ("otc", "base")]
    # Two tests of one p: Holm doubles it.
    assert [one.p_holm for one in whole.compared] == [1.0, 1.0]


def test_questions_that_one_side_lacks_are_counted(tmp_path):
    small, large = evaluation(tmp_path / "s", questions=4), evaluation(tmp_path / "l")
    [one] = compare_policies(parse_sides([f"{large}:base", f"{small}:last"])).compared
    assert (one.questions, one.seeds[0].only_old, one.seeds[0].only_new) == (4, 2, 0)


def test_what_may_differ_is_said_and_the_rest_is_refused(tmp_path):
    one, other = evaluation(tmp_path / "a"), evaluation(tmp_path / "b", renderer="torl")
    sides = parse_sides([f"{one}:base", f"{other}:last"])
    with pytest.raises(
        ValueError,
        match=r"renderer is retool in .*a:base and torl in .*b:last; --may_differ renderer",
    ):
        compare_policies(sides)
    assert len(compare_policies(sides, ["renderer"]).notes) == 1
    with pytest.raises(ValueError, match="--may_differ seed: write one of renderer, judge"):
        compare_policies(sides, ["seed"])
    warmer = evaluation(tmp_path / "w", temperature=0.5)  # acts on sampled answers alone
    assert compare_policies(parse_sides([f"{one}:base", f"{warmer}:last"])).notes == ()


def test_refusals_are_one_line(tmp_path):
    run_dir = evaluation(tmp_path / "eval")
    (tmp_path / "none").mkdir()
    for texts, message in (
        ([f"{run_dir}:base"], "base alone cannot be compared: name a second policy"),
        ([f"{run_dir}:base", f"{run_dir}:x"], "has no policy 'x': it has base, last"),
        ([f"{run_dir}:base", f"{run_dir}:base"], "eval:base is named twice: leave one out"),
        ([f"a={run_dir}:base", f"a={run_dir}:last"], "two sides are called 'a'"),
        ([f"a={run_dir}", f"{run_dir}:last"], "has several policies: name one of base, last"),
        ([f"{tmp_path}/none:base", f"{run_dir}:last"], "none holds no evaluation"),
        (
            [f"a={run_dir}:base,{run_dir}:last", f"{evaluation(tmp_path / 'two')}:base"],
            "each side needs as many: a has 2, base has 1",
        ),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            parse_sides(texts)
        assert "\n" not in str(error.value)


def test_conditions_without_a_partner_are_said_or_refused(tmp_path):
    run_dir = evaluation(tmp_path / "eval")
    other = tmp_path / "other"
    other.mkdir()
    records = [answer("last", q, has_tools=False, max_tool_calls=0) for q in range(6)]
    none = Condition(sampling="sampled", has_tools=False, max_tool_calls=0)
    write_evaluation(other, records, conditions=(none,))
    with pytest.raises(
        ValueError,
        match=r"no condition is common to all sides: .*greedy_calls_2; .*sampled_no_tools",
    ):
        compare_policies(parse_sides([f"{run_dir}:base", f"{other}:last"]))


def test_too_many_lost_answers_have_no_figures(tmp_path):
    workdir = tmp_path / "lost"
    workdir.mkdir()
    records = [
        answer(policy, q, sampling="greedy", is_lost=q == 0 and policy == "last")
        for policy in ("base", "last")
        for q in range(6)
    ]
    write_evaluation(workdir, records, conditions=(GREEDY,))
    with pytest.raises(ValueError, match=r"lost:last, greedy_calls_2: rests on 5 answers, 1 lost"):
        compare_policies(parse_sides([str(workdir)]))
    settings = json.loads((workdir / "evaluation.json").read_text())
    (workdir / "evaluation.json").write_text(json.dumps(settings | {"max_lost_fraction": 0.5}))
    [one] = compare_policies(parse_sides([str(workdir)])).compared
    assert (one.questions, one.seeds[0].with_lost) == (5, 1)
    assert dataclasses.asdict(one.found.test)["better"] == 0
