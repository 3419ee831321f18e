"""The pure parts of benchmarks/quickstart_seeds.py, with rows made by hand; no quickstart is run."""

import json

import pytest

from benchmarks import quickstart_seeds as bench

HERE = {
    "python": "3.11.7",
    "jax": "0.10.2",
    "processor": "AuthenticAMD family 25 model 17",
    "cores": 2,
}


def row(seed, **changes):
    figures = {"greedy/otc_grpo/tool_calls": 0.3 + seed / 10, "greedy/grpo/accuracy": 0.95}
    return {
        "seed": seed,
        **HERE,
        "commit": "a" * 40,
        "seconds": 200.0,
        "figures": figures,
    } | changes


def results(otc_calls=0.3):
    levels = {"hard": {"answers": 120}, "one_digit": {"answers": 280}}
    calls = {"cold_start": 0.5, "grpo": 1.5, "otc_grpo": otc_calls}
    part = {name: {"accuracy": 0.9, "tool_calls": x, "levels": levels} for name, x in calls.items()}
    pair = {"calls_cut": 0.8, "accuracy_difference_points": 1.5}
    return {
        "variants": {name: {"greedy": p, "sampled": p} for name, p in part.items()},
        "otc_against_grpo": {"greedy": pair, "sampled": pair},
        "otc_against_cold_start": {"greedy": pair | {"calls_cut": None}, "sampled": pair},
    }


def test_seeds_are_read_or_refused():
    assert bench.seeds_of("0-2,7,1") == [0, 1, 2, 7]
    assert bench.seeds_of("none") == []
    for wrong in ("", "a", "3-1", "1-", "-1", "1.5"):
        with pytest.raises(ValueError, match="neither a seed nor a range"):
            bench.seeds_of(wrong)


def test_figures_of_a_quickstart():
    found = bench.figures_of(results())
    assert found["greedy/grpo/tool_calls"] == 1.5
    assert found["sampled/otc_grpo/calls_cut_against_grpo"] == 0.8
    assert found["greedy/otc_grpo/calls_cut_against_cold_start"] is None
    assert found["greedy/otc_grpo/calls_beyond_needed"] == pytest.approx(0.0)
    fewer = bench.figures_of(results(0.25))["greedy/otc_grpo/calls_beyond_needed"]
    assert fewer == pytest.approx(-0.05)


def test_rows_are_read_or_refused_by_file_and_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    assert bench.read_rows(file) == []
    file.write_text(json.dumps(row(0)) + "\n")
    assert bench.read_rows(file) == [row(0)]
    for wrong in ('{"seed": 1', '{"seed": 1}', "[]"):
        file.write_text(json.dumps(row(0)) + "\n" + wrong + "\n")
        with pytest.raises(ValueError, match=r"rows.jsonl:2 is no row .*delete the line"):
            bench.read_rows(file)


def test_what_has_a_row_is_not_run_again():
    rows = [row(0), row(2), row(1, python="3.12.1"), row(3, cores=1)]
    assert bench.missing([0, 1, 2, 3], HERE, rows) == [1, 3]
    assert bench.missing([0], HERE | {"processor": "another"}, rows) == [0]


def test_table_by_hand():
    """Calls .3, .4, .5: s = .1, t(2) = 4.303, so .4 ± .248; other versions are a part of their own."""
    first, second = bench.table([row(0), row(1), row(2, commit="b" * 40), row(0, jax="0.12")])
    assert (first["seeds"], second["seeds"]) == ([0, 1, 2], [0])
    assert first["commits"] == ["a" * 40, "b" * 40]
    calls = first["figures"]["greedy/otc_grpo/tool_calls"]
    assert (calls["mean"], calls["deviation"]) == pytest.approx((0.4, 0.1))
    assert (calls["low"], calls["high"]) == pytest.approx((0.4 - 0.2484, 0.4 + 0.2484), abs=1e-4)
    assert (calls["least"], calls["most"]) == pytest.approx((0.3, 0.5))
    shown = bench.markdown([first, second])
    assert "| greedy | otc_grpo | tool calls | 0.40 (0.15..0.65) | 0.10 | 0.30 | 0.50 |" in shown
    assert "| greedy | otc_grpo | tool calls | 0.30 | – | 0.30 | 0.30 |" in shown
    assert "| greedy | grpo | accuracy % | 95.0 (95.0..95.0) | 0.0 | 95.0 | 95.0 |" in shown
    assert "seeds 0, 1, 2, at aaaaaaa, bbbbbbb:" in shown


def test_a_figure_that_some_seeds_lack_says_how_many_it_has():
    found = bench.spread([0.5, None])
    assert (found["count"], found["mean"], found["deviation"]) == (1, 0.5, None)
    assert bench.spread([None])["mean"] is None


def test_the_rows_of_a_run_are_appended(tmp_path, monkeypatch):
    """Seed 1 fails: seeds 0 and 2 have their rows, and the same command would run seed 1 alone."""

    def run_seed(seed, where, python, folder):
        if seed == 1:
            raise RuntimeError("seed 1: exit status 1")
        return row(seed)

    monkeypatch.setattr(bench, "run_seed", run_seed)
    file = tmp_path / "rows.jsonl"
    flags = bench.parser().parse_args(["--rows", str(file), "--one_core"])
    assert bench.run_all(flags, HERE, [0, 1, 2]) == 1
    assert bench.missing([0, 1, 2], HERE, bench.read_rows(file)) == [1]


def test_the_table_of_the_page_is_made_of_the_committed_rows():
    rows = bench.read_rows(bench.ROOT / "docs" / "results" / "quickstart_seeds.jsonl")
    page = (bench.ROOT / "docs" / "experiments.md").read_text()
    assert bench.markdown(bench.table(rows)).strip() in page
