"""`python -m experiments.evaluate`: what its flags ask, and what it writes of the answers that it gets."""

import dataclasses
import json
import pathlib

import pytest
from helpers.answers import answer, write_evaluation

from jaxtool.cli import evaluate
from jaxtool.study import evaluating, evaluation_config, evaluation_plan
from jaxtool.train import run_data, run_tools


@dataclasses.dataclass
class Plan:
    config: None = None


def run(monkeypatch, tmp_path, records, *flags):
    """What the plan is asked, and the JSON that is written where these are the answers."""
    kept = {}

    def plan(config, policies, asked):
        kept["asked"], kept["policies"] = asked, policies
        return Plan()

    def answered(_, workdir, **__):
        workdir.mkdir(exist_ok=True)
        kept["workdir"] = workdir
        write_evaluation(workdir, records)

    monkeypatch.setattr(evaluation_plan, "plan_evaluation", plan)
    monkeypatch.setattr(evaluating, "run_evaluation", answered)
    monkeypatch.setattr(evaluation_config, "evaluated_config", lambda *_, **__: (None, ()))
    monkeypatch.setattr(run_tools, "with_functions", lambda config, *_: config)
    monkeypatch.setattr(run_data, "with_test_data", lambda config, _: config)
    path = tmp_path / "out.json"
    own = ["--policy", "base=a", "--policy", "new=b", "--json", str(path)]
    monkeypatch.setattr("sys.argv", ["evaluate", *own, *flags])
    try:
        evaluate.main()
    finally:
        kept["json"] = json.loads(path.read_text()) if path.exists() else None
    return kept


def answers(questions=4, lost=0, samplings=("greedy", "sampled")):
    """Right answers of two policies; the last one loses some of its sampled ones."""
    return [
        answer(policy, q, right=True, sampling=way, is_lost=is_lost)
        for policy in ("base", "new")
        for way in samplings
        for q in range(questions)
        for is_lost in [policy == "new" and way == "sampled" and q < lost]
    ]


def test_both_ways_and_400_questions_unless_told_otherwise(monkeypatch, tmp_path):
    found = run(monkeypatch, tmp_path, answers())
    assert (found["asked"].problems, found["asked"].samplings) == (400, ("greedy", "sampled"))
    assert found["asked"].samples == 1
    assert set(found["json"]["variants"]["new"]) == {"greedy", "sampled"}
    assert not found["workdir"].exists()


def test_a_work_directory_stays(monkeypatch, tmp_path, capsys):
    workdir = tmp_path / "eval"
    found = run(monkeypatch, tmp_path, answers(), "--workdir", str(workdir))
    assert found["workdir"] == workdir
    assert (workdir / "evaluation.json").is_file()
    assert f"answers {workdir}" in capsys.readouterr().out


def test_all_questions_and_one_way(monkeypatch, tmp_path, capsys):
    flags = ("--problems", "all", "--sampling", "greedy")
    found = run(monkeypatch, tmp_path, answers(samplings=("greedy",)), *flags)
    assert (found["asked"].problems, found["asked"].samplings) == (None, ("greedy",))
    assert set(found["json"]["variants"]["new"]) == {"greedy"}
    printed = capsys.readouterr().out
    assert "avg@k" in printed
    assert "sampled" not in printed.partition("Intervals of")[0]


@pytest.mark.parametrize(
    ("flags", "problems"), [((), None), (("--problems", "5"), 5), (("--problems", "all"), None)]
)
def test_sets_of_data_are_asked_whole_unless_told_otherwise(monkeypatch, tmp_path, flags, problems):
    found = run(monkeypatch, tmp_path, answers(), "--data", "aime24=x.jsonl", *flags)
    assert found["asked"].problems == problems
    assert found["asked"].data == "aime24=x.jsonl"


def test_conditions_of_the_command_line(monkeypatch, tmp_path):
    flags = "--samples 32 --k 1,32 --temperature 0.6 --top_p 0.7 --tools on,off --calls 0,2"
    asked = run(monkeypatch, tmp_path, answers(), *flags.split())["asked"]
    assert (asked.samples, asked.ks, asked.temperature, asked.top_p) == (32, (1, 32), 0.6, 0.7)
    assert (asked.tools, asked.calls) == (("on", "off"), (0, 2))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--problems", "0"), "'0' must be a whole number from 1, or all"),
        (("--problems", "-3"), "'-3' must be a whole number from 1, or all"),
        (("--problems", "some"), "'some' must be a whole number from 1, or all"),
        (("--tools", "both"), "'both' must be on, off, or on,off"),
        (("--calls", "1,-2"), "'1,-2' must be whole numbers, as in 0,1,2"),
        (("--max_response_tokens", "0"), "'0' must be a whole number from 1"),
    ],
    ids=["zero", "negative", "word", "tools", "calls", "response"],
)
def test_a_value_that_is_none_is_refused(monkeypatch, tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, answers(), *flags)
    assert said in capsys.readouterr().err


def test_a_k_above_the_samples_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"--k 8: .* say --samples 8"):
        run(monkeypatch, tmp_path, answers(), "--k", "8")


def test_a_page_has_the_tables_and_some_answers(monkeypatch, tmp_path):
    from jaxtool.study import record_tables

    monkeypatch.setattr(record_tables, "operative_config", lambda _: "nothing")
    page = tmp_path / "page.html"
    run(monkeypatch, tmp_path, answers(), "--html", str(page))
    text = page.read_text()
    assert "Accuracy with intervals of 95 %" in text
    assert "What is 3 + 1?" in text


def test_a_few_lost_answers_are_counted(monkeypatch, tmp_path, capsys):
    found = run(monkeypatch, tmp_path, answers(200, lost=2))["json"]
    part = found["variants"]["new"]["sampled"]
    assert (part["answers"], part["lost"], part["accuracy"]) == (198, 2, 1.0)
    assert found["paired"]["new"]["sampled"]["questions"] == 198
    assert found["paired"]["new"]["sampled"]["questions_left_out"] == 2
    assert found["paired"]["new"]["greedy"]["questions"] == 200
    assert "198 of 200" in capsys.readouterr().out


def test_above_the_share_the_table_is_refused(monkeypatch, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"no figures, .*new, sampled: 3 of 200 answers lost"):
        run(monkeypatch, tmp_path, answers(200, lost=3))
    found = json.loads(pathlib.Path(tmp_path / "out.json").read_text())
    part = found["variants"]["new"]["sampled"]
    assert part == {"problems": 197, "answers": 197, "lost": 3, "lost_to": {}, "levels": {}}
    assert found["paired"]["new"]["sampled"] == {"questions": 197, "questions_left_out": 3}
    assert found["paired"]["new"]["greedy"]["calls_cut"] is None
    assert "sampled" not in found["figures"]["new"]
    printed = capsys.readouterr().out
    assert "197 of 200" in printed
    assert "refused" in printed
