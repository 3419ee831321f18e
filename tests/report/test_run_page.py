"""What a directory's page holds: the first screen, explained metrics, constants apart, answers of an evaluation."""

import json
import math

import pytest
from helpers.answer_examples import make_record

from jaxtool.report import page, run_page
from jaxtool.report.__main__ import main
from jaxtool.rundir import metrics
from jaxtool.rundir.answer_records import write_records
from jaxtool.rundir.metric_table import METRICS, meaning_of


def write_run(folder, values, level_names=("one",)):
    with metrics.MetricsWriter(folder) as writer:
        for step, value in enumerate(values):
            levels = {f"level/accuracy_fraction/{level}": value for level in level_names}
            writer.write(step, {"reward/mean": value, "policy/skipped_updates": 0.0, **levels})
    (folder / "operative_config.gin").write_text(f"# of {folder.name}\n")


def sections_of(report: page.Report) -> dict[str, page.Section]:
    return {section.title: section for section in report.sections}


def test_one_run_is_rebuilt_from_its_directory(tmp_path, capsys):
    write_run(tmp_path / "grpo", [0.0, math.nan, 1.0], level_names=("one", "two"))
    main([str(tmp_path / "grpo")])
    path = tmp_path / "grpo" / page.REPORT_NAME
    assert capsys.readouterr().out.strip() == str(path)
    rebuilt = run_page.report_of_workdir(tmp_path / "grpo")
    sections = sections_of(rebuilt)
    assert list(sections) == [
        "training",
        "level",
        "metrics",
        "reward",
        "constants",
    ]
    assert [s.is_folded for s in sections.values()] == [False, True, True, True, True]
    (accuracy,) = sections["level"].curves
    assert [series.name for series in accuracy.series] == ["one", "two"]
    assert sections["training"].curves[0].series[0].ys == [0.0, None, 1.0]
    assert "# of grpo" in rebuilt.config


def test_every_curve_says_what_it_shows_and_constants_are_a_table(tmp_path):
    write_run(tmp_path / "grpo", [0.0, 1.0])
    sections = sections_of(run_page.report_of_workdir(tmp_path / "grpo"))
    notes = [curve.note for section in sections.values() for curve in section.curves]
    assert METRICS["reward/mean"] in notes
    assert METRICS["level/accuracy_fraction/{level}"] in notes
    (table,) = sections["constants"].tables
    skipped = ("policy/skipped_updates", 0.0, METRICS["policy/skipped_updates"])
    assert skipped in table.rows
    assert "policy" not in sections


def test_the_first_screen_is_the_end_of_the_run_and_how_it_began():
    names = ("reward/accuracy_fraction", "tools/calls_per_answer", "tokens/response_mean")
    rows = [dict(zip(names, (k / 100, 3 - k / 50, 200.0 + k), strict=True)) for k in range(100)]
    found = {one.label: one for one in run_page.headlines(rows)}
    assert list(found) == ["Accuracy", "Calls of an answer", "Tokens of an answer"]
    # The last tenth is 0.90 to 0.99, the first 0.00 to 0.09.
    assert found["Accuracy"].value == "0.945"
    assert found["Accuracy"].note.endswith("0.045 in the first steps.")
    assert found["Accuracy"].note.startswith(METRICS["reward/accuracy_fraction"])
    assert found["Calls of an answer"].value == "1.11"  # 3 - 94.5 / 50
    assert found["Tokens of an answer"].value == "294"  # 294.5, to even
    validated = [row | {"validation/accuracy_fraction": 0.5} for row in rows]
    assert run_page.headlines(validated)[0].value == "0.5"
    assert run_page.headlines([{"step": 0}]) == ()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("reward/mean", "reward/mean"),
        ("tools/calls_per_answer", "tools/calls_per_answer"),
        ("tools/calls_per_answer/python", "tools/calls_per_answer/{tool}"),
        ("level/accuracy_fraction/one", "level/accuracy_fraction/{level}"),
        ("tokens/finish_fraction/eos", "tokens/finish_fraction/{reason}"),
    ],
)
def test_a_metric_of_a_family_has_the_familys_meaning(name, key):
    assert meaning_of(name) == METRICS[key]
    assert meaning_of("mine/own_metric") == ""


def test_runs_of_a_directory_are_compared_variant_by_variant(tmp_path):
    write_run(tmp_path / "grpo", [0.0, 1.0], level_names=("one", "two"))
    write_run(tmp_path / "otc", [0.5], level_names=("one",))
    rebuilt = run_page.report_of_workdir(tmp_path)
    assert rebuilt.variants == ("grpo", "otc")
    assert rebuilt.headlines == ()
    curves = {curve.title: curve for s in rebuilt.sections for curve in s.curves}
    lines = {title: [series.name for series in curve.series] for title, curve in curves.items()}
    assert lines["accuracy fraction · one"] == ["grpo", "otc"]
    assert lines["accuracy fraction · two"] == ["grpo"]


def test_curves_say_what_their_metrics_mean():
    row = {
        "step": 0,
        "behaviour/ok_programs_fraction": 0.5,
        "behaviour/ok_programs_fraction/right": 0.8,
        "behaviour/ok_programs_fraction/wrong": 0.2,
        "mine/unknown": 1.0,
    }
    sections = {section.title: section for section in run_page.metric_sections({"run": [row]})}
    [curve] = sections["behaviour"].curves
    assert [series.name for series in curve.series] == ["run", "right", "wrong"]
    assert curve.note == (
        "Share of the programs that ran without error: ToRL's pass ratio. "
        "Share of the programs of right and of wrong answers that ran without error."
    )
    assert sections["mine"].curves[0].note == ""


def test_long_series_are_thinned_to_means(monkeypatch):
    monkeypatch.setattr(run_page, "MAX_POINTS", 2)
    rows = [{"step": step, "a/x": y} for step, y in enumerate([1.0, 3.0, math.nan, math.nan])]
    (section,) = run_page.metric_sections({"run": rows})
    series = section.curves[0].series[0]
    assert (series.xs, series.ys) == ([1, 3], [2.0, None])


def test_an_evaluation_shows_all_its_answers_and_the_means_of_those_not_lost(tmp_path):
    folder = tmp_path / "answers" / "base" / "sampled_calls_4"
    folder.mkdir(parents=True)
    records = [make_record(sample=0), make_record(sample=1, is_correct=False, calls=())]
    lost = make_record(sample=2, is_lost=True, is_correct=False, policy_tokens=10**6)
    write_records(folder / "00000.parquet", [*records, lost])
    report = run_page.report_of_workdir(tmp_path)
    (table,) = report.sections[0].tables
    # 20 tokens of the policy and 4 of the tool in each.
    assert table.rows == (("base", "sampled, 4 calls", 2, 1, 50.0, 0.5, 24.0),)
    main([str(tmp_path)])
    text = (tmp_path / page.REPORT_NAME).read_text()
    data = json.loads(text.split('id="report-data">')[1].split("</script>")[0])
    assert data["answers"]["count"] == 3
    assert data["answers"]["columns"]["lost"] == [False, False, True]


def test_two_evaluations_stand_side_by_side_and_their_policies_apart(tmp_path):
    for name in ("before", "after"):
        folder = tmp_path / name / "answers" / "base" / "sampled_calls_4"
        folder.mkdir(parents=True)
        write_records(folder / "00000.parquet", [make_record()])
    report = run_page.report_of_workdir(tmp_path)
    assert report.variants == ("after:base", "before:base")
    assert report.subtitle == "2 answers of after:base, before:base to 1 question"


def test_a_damaged_file_of_answers_is_one_line(tmp_path, capsys):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "00000.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "00000.parquet is no parquet file of answers" in capsys.readouterr().err


def test_a_log_of_something_else_is_one_line_and_no_page(tmp_path, capsys):
    write_run(tmp_path, [0.0, 1.0])
    (tmp_path / "trajectories.jsonl").write_text('{"step": 0, "tokens": {}}\n')
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    said = capsys.readouterr().err
    assert "trajectories.jsonl:1: the row is no trajectory (KeyError: 'tool_calls')" in said
    assert not (tmp_path / page.REPORT_NAME).exists()


def test_a_directory_without_runs_is_a_one_line_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path)])
    assert "holds no metrics.jsonl and no answers/" in capsys.readouterr().err
