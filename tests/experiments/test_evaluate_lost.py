"""`python -m experiments.evaluate` where the sandbox lost answers: counts, no figures, exit code 1."""

import json

import pytest
from helpers.ledgers import group_of, ledger

from experiments import evaluate
from jaxtool.core.types import FinishReason
from jaxtool.study import compare
from jaxtool.train import run_files
from jaxtool.train.evaluation import evaluation_of


def evaluation(lost):
    reasons = FinishReason.ANSWER, FinishReason.INFRASTRUCTURE
    groups = [
        group_of(ledger("Qp", problem=f"q{i}", reason=reasons[i < lost]), is_correct=[True])
        for i in range(200)
    ]
    return evaluation_of(groups, 0.01)


def run(monkeypatch, path, lost):
    variants = {
        name: {"greedy": evaluation(0), "sampled": evaluation(count)}
        for name, count in (("base", 0), ("new", lost))
    }
    made = compare.Comparison(variants=variants, views=(), max_lost_fraction=0.01)
    monkeypatch.setattr(compare, "compare", lambda *_, **__: made)
    monkeypatch.setattr(run_files, "load_rl_run", lambda *_: None)
    flags = ["--gin_file", "x.gin", "--policy", "base=a", "--policy", "new=b", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["evaluate", *flags])
    evaluate.main()


def test_a_few_lost_answers_are_counted(monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path / "out.json", 2)
    found = json.loads((tmp_path / "out.json").read_text())
    part = found["variants"]["new"]["sampled"]
    assert (part["answers"], part["lost"], part["accuracy"]) == (198, 2, 1.0)
    assert found["paired"]["new"]["sampled"]["questions"] == 198
    assert found["paired"]["new"]["sampled"]["questions_left_out"] == 2
    assert found["paired"]["new"]["greedy"]["questions"] == 200
    assert "198 of 200" in capsys.readouterr().out


def test_above_the_share_the_table_is_refused(monkeypatch, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"no figures, .*new, sampled: 3 of 200 answers lost"):
        run(monkeypatch, tmp_path / "out.json", 3)
    found = json.loads((tmp_path / "out.json").read_text())
    part = found["variants"]["new"]["sampled"]
    assert part.pop("levels") == {"easy": {"problems": 197, "answers": 197, "lost": 3}}
    assert part == {"problems": 197, "answers": 197, "lost": 3}
    assert found["paired"]["new"]["sampled"] == {"questions": 197, "questions_left_out": 3}
    assert found["paired"]["new"]["greedy"]["calls_cut"] is None
    printed = capsys.readouterr().out
    assert "197 of 200" in printed
    assert "refused" in printed
