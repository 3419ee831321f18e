"""What a sweep came to: figures worked out by hand, unfinished runs left out, one page."""

import json

import pytest
from helpers.sweeps import GRID, make_run, sweep_of

from jaxtool.report.figure_files import report_of_page
from jaxtool.report.page import write_report
from jaxtool.study import sweep_figures
from jaxtool.study.sweep import jobs_of


@pytest.fixture
def found(tmp_path):
    """samples=4 has rewards 1 and 3 at the end, samples=8 one finished run and one that was killed."""
    sweep = sweep_of(tmp_path, GRID + '[points]\nnever = ["Schedule.pool = 64"]\n')
    jobs = {job.name: job for job in jobs_of(sweep, tmp_path / "w")}
    make_run(jobs["samples=4/seed0"], [9.0, 1.0])
    make_run(jobs["samples=4/seed1"], [7.0, 3.0])
    make_run(jobs["samples=8/seed0"], [0.5])
    make_run(jobs["samples=8/seed1"], [100.0, 100.0], ends=False)
    results = sweep_figures.results_of(list(jobs.values()))
    return sweep, results, sweep_figures.as_json(sweep, results)


def test_a_figure_is_the_mean_over_seeds_with_its_t_interval(found):
    """1 and 3: mean 2, s = √2, error s / √2 = 1, and t of 95 % with one degree of freedom is 12.706."""
    points = found[2]["points"]
    figure = points["samples=4"]["reward/mean"]
    assert figure["seeds"] == {"0": 1.0, "1": 3.0}
    assert figure["mean"] == 2.0
    assert figure["low"] == pytest.approx(2 - 12.7062, abs=1e-4)
    assert figure["high"] == pytest.approx(2 + 12.7062, abs=1e-4)
    one = points["samples=8"]["reward/mean"]
    assert one == {"mean": 0.5, "low": None, "high": None, "seeds": {"0": 0.5}}
    none = {"mean": None, "low": None, "high": None, "seeds": {}}
    assert points["never"]["reward/mean"] == points["samples=4"]["sft/loss_nats"] == none


def test_points_are_compared_with_the_first_by_their_common_seeds(found, tmp_path):
    """0.5 less 1 of seed 0. Differences 1 and 3 over seeds would have the interval of the test above."""
    differences = found[2]["differences"]
    assert list(differences) == ["samples=8", "never"]
    assert differences["samples=8"]["reward/mean"]["seeds"] == {"0": -0.5}
    assert differences["never"]["reward/mean"]["mean"] is None
    table = sweep_figures.difference_table(found[2])
    assert (table.title, table.rows) == ("Less samples=4, seed by seed", (("samples=8", "-0.5"),))
    sweep = sweep_of(tmp_path)
    jobs = jobs_of(sweep, tmp_path / "v")
    for job, reward in zip(jobs, (10.0, 11.0, 20.0, 23.0), strict=True):
        make_run(job, [reward])
    record = sweep_figures.as_json(sweep, sweep_figures.results_of(jobs))
    assert sweep_figures.difference_table(record).rows == (("samples=8", "+2 (-10.7..+14.7)"),)


def test_a_runs_figure_is_the_mean_of_its_last_tenth_of_steps(tmp_path):
    """20 steps: the last two, 18 and 19; a step without the metric, and one of nan, are none."""
    [job, *_] = jobs_of(sweep_of(tmp_path), tmp_path / "w")
    rows = [{"step": i, "reward/mean": float(i)} for i in range(20)]
    rows += [{"step": 20, "other/x": 1.0}, {"step": 21, "reward/mean": float("nan")}]
    result = sweep_figures.JobResult(job=job, state="running", step=22, rows=rows)
    assert result.figure("reward/mean") == 18.5
    assert result.figure("sft/loss_nats") is None


def test_the_tables_say_what_is_finished(found):
    table = sweep_figures.point_table(found[2])
    assert table.columns == ("Point", "Finished", "reward")
    assert table.rows == (
        ("samples=4", "2/2", "2 (-10.7..14.7)"),
        ("samples=8", "1/2", "0.5"),
        ("never", "0/2", "–"),
    )
    jobs = {row[0]: row[1:] for row in sweep_figures.job_table(found[2]).rows}
    assert jobs["samples=4/seed1"] == ("finished", "4/4", 3.0)
    assert jobs["samples=8/seed1"] == ("stopped", "2/4", 100.0)
    assert jobs["never/seed0"] == ("not begun", "0/4", None)


def test_the_page_has_all_tables_and_a_line_for_each_point_with_a_finished_run(found, tmp_path):
    _, results, record = found
    report = sweep_figures.sweep_report(record, results, title="grid", config="run = []")
    page = write_report(tmp_path / "report.html", report)
    figures, training = report_of_page(page).sections
    assert [len(table.rows) for table in figures.tables] == [3, 1, 6]
    [curve] = training.curves
    lines = {series.name: (list(series.xs), list(series.ys)) for series in curve.series}
    assert lines == {"samples=4": ([0, 1], [8.0, 2.0]), "samples=8": ([0], [0.5])}
    assert "seeds 0, 1; 3 of 6 jobs finished" in page.read_text()
    json.dumps(record, allow_nan=False)


def test_a_sweep_that_has_not_begun_is_a_table_of_dashes(tmp_path):
    sweep = sweep_of(tmp_path)
    results = sweep_figures.results_of(jobs_of(sweep, tmp_path / "w"))
    record = sweep_figures.as_json(sweep, results)
    assert sweep_figures.point_table(record).rows == (("samples=4", "0/2"), ("samples=8", "0/2"))
    assert len(sweep_figures.sweep_report(record, results, title="x", config="").sections) == 1
