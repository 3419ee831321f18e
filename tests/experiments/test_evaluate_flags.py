"""`python -m experiments.evaluate`: how many questions, and which ways of sampling."""

import json

import pytest
from helpers.ledgers import group_of, ledger

from experiments import evaluate
from jaxtool.study import compare
from jaxtool.train import run_data, run_files
from jaxtool.train.evaluation import evaluation_of


def asked(monkeypatch, tmp_path, *flags):
    """What `compare` is asked, and what is written where it gives the ways of sampling it was asked for."""
    kept = {}

    def answer(*_, **options):
        kept.update(options)
        figures = evaluation_of([group_of(ledger("Qp"), is_correct=[True])], 0.01)
        variants = {"new": dict.fromkeys(options["samplings"], figures)}
        return compare.Comparison(variants=variants, views=(), max_lost_fraction=0.01)

    monkeypatch.setattr(compare, "compare", answer)
    monkeypatch.setattr(run_files, "load_rl_run", lambda *_: None)
    monkeypatch.setattr(run_data, "with_test_data", lambda config, _: config)
    path = tmp_path / "out.json"
    own = ["--gin_file", "x.gin", "--policy", "new=b", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["evaluate", *own, *flags])
    evaluate.main()
    return kept["problems"], kept["samplings"], json.loads(path.read_text())


def test_both_ways_and_400_questions_unless_told_otherwise(monkeypatch, tmp_path):
    problems, samplings, found = asked(monkeypatch, tmp_path)
    assert (problems, samplings) == (400, ("greedy", "sampled"))
    assert set(found["variants"]["new"]) == {"greedy", "sampled"}


def test_all_questions_and_one_way(monkeypatch, tmp_path, capsys):
    flags = ("--problems", "all", "--sampling", "greedy")
    problems, samplings, found = asked(monkeypatch, tmp_path, *flags)
    assert (problems, samplings) == (None, ("greedy",))
    assert set(found["variants"]["new"]) == {"greedy"}
    printed = capsys.readouterr().out
    assert "By level, greedy" in printed
    assert "sampled" not in printed


@pytest.mark.parametrize(
    ("flags", "problems"), [((), None), (("--problems", "5"), 5), (("--problems", "all"), None)]
)
def test_sets_of_data_are_asked_whole_unless_told_otherwise(monkeypatch, tmp_path, flags, problems):
    assert asked(monkeypatch, tmp_path, "--data", "aime24=x.jsonl", *flags)[0] == problems


@pytest.mark.parametrize("number", ["0", "-3", "some"])
def test_a_number_that_is_none_is_refused(monkeypatch, tmp_path, capsys, number):
    with pytest.raises(SystemExit):
        asked(monkeypatch, tmp_path, "--problems", number)
    assert f"{number!r} must be a whole number from 1, or all" in capsys.readouterr().err
