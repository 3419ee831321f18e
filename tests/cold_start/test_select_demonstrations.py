"""Right answers of runs as demonstrations: which are chosen, why the others are left out, what their text is."""

import dataclasses
import json
import sys

import pytest
from helpers.answers import answer, write_evaluation
from helpers.demonstration_rows import read_rows, solution

from jaxtool.cli import select_demonstrations
from jaxtool.cold_start.selection import (
    SampledAnswer,
    SelectionSettings,
    demonstration_row,
    read_evaluation,
    read_run,
    select,
)
from jaxtool.rundir.answer_records import Part
from jaxtool.rundir.trajectory_log import (
    TokenView,
    ToolCallView,
    TrajectoryLog,
    TrajectoryView,
)


def sampled(name, **fields):
    own = {
        "source": name,
        "question": "Six times seven?",
        "answer": "42",
        "response": f"text of {name}",
        "is_correct": True,
        "calls": 1,
        "tokens": 10,
        "step": 3,
    }
    return SampledAnswer(**(own | fields))


def chosen(answers, **settings):
    selected = select(answers, SelectionSettings(**settings))
    return [answer.source for answer in selected.chosen], selected.left_out


def test_the_fewest_calls_win_then_the_shortest_text():
    """By hand: d has no call but is wrong; of those with one call b is shorter than a."""
    answers = [
        sampled("a"),
        sampled("b", tokens=9),
        sampled("c", calls=2, tokens=1),
        sampled("d", calls=0, is_correct=False),
    ]
    assert chosen(answers) == (["b"], {"wrong_answer": 1, "others_preferred": 2})
    assert chosen(answers, per_question=2)[0] == ["b", "a"]
    assert chosen(answers, order="shortest")[0] == ["c"]


def test_other_orders_and_bounds():
    answers = [sampled("a", step=1), sampled("b", step=5, calls=2), sampled("c", step=-1, calls=0)]
    assert chosen(answers, order="latest")[0] == ["b"]
    assert chosen(answers)[0] == ["c"]
    assert chosen(answers, min_calls=1)[0] == ["a"]
    assert chosen(answers, min_calls=2, max_calls=2)[0] == ["b"]
    assert chosen(answers, first_step=2, min_calls=1) == (
        ["b"],
        {"other_step": 1, "other_number_of_calls": 1},
    )
    assert chosen(answers, last_step=1)[0] == ["c"]


def test_questions_come_in_the_order_of_their_first_answer():
    answers = [
        sampled("a", question="Q"),
        sampled("b"),
        sampled("c", question="q "),
        sampled("d", question=" Q"),
    ]
    names, left_out = chosen(answers)
    assert names == ["a", "b", "c"]  # case counts, blanks do not
    assert left_out == {"others_preferred": 1}


def test_the_same_text_counts_once():
    answers = [sampled("a", response="x"), sampled("b", response="x"), sampled("c", response="y")]
    assert chosen(answers, per_question=3) == (["a", "c"], {"same_response": 1})


def test_texts_that_cannot_be_used_are_left_out():
    assert chosen([sampled("a", fault="control_token")]) == ([], {"control_token": 1})


def test_settings_that_choose_nothing_are_refused():
    with pytest.raises(ValueError, match="nothing would be left"):
        SelectionSettings(min_calls=2, max_calls=1)
    with pytest.raises(ValueError, match="must be one of fewest_calls, shortest, latest"):
        SelectionSettings(order="best")  # pyright: ignore[reportArgumentType]


def view_of(text, *, ending=(), **fields):
    tokens = [TokenView(text="Q", token_id=1, origin="prompt")]
    tokens += [TokenView(text=letter, token_id=2, origin="policy") for letter in text]
    tokens += ending
    own = TrajectoryView(
        variant="grpo",
        step=4,
        problem_id="p/1",
        level="",
        question="Six times seven?",
        reference_answer="42",
        sample=2,
        reward=1.0,
        is_correct=True,
        tool_calls=(ToolCallView(status="ok", tool="python"),),
        tokens=tuple(tokens),
    )
    return dataclasses.replace(own, **fields)


END = TokenView(text="<|im_end|>", token_id=3, origin="policy", is_control=True)


def write_run(workdir, *views):
    workdir.mkdir()
    with TrajectoryLog(workdir) as log:
        log.write(views)
    return workdir


def test_a_run_is_read_without_its_end_token(tmp_path):
    run = write_run(
        tmp_path / "mine",
        view_of(solution(6, 7), ending=(END,)),
        view_of("a", ending=(END, TokenView(text="b", token_id=4, origin="policy"))),
        view_of("half \ufffd"),
        view_of(""),
        view_of(solution(6, 7), is_masked=True, is_correct=False),
    )
    first, control, broken, empty, lost = read_run(run)
    assert (first.response, first.calls, first.fault) == (solution(6, 7), 1, "")
    assert first.source == "mine step 4 p/1 sample 2"
    assert [answer.fault for answer in (control, broken, empty, lost)] == [
        "control_token",
        "broken_character",
        "no_text",
        "lost_to_infrastructure",
    ]
    # It is not counted among the wrong ones.
    assert chosen([lost]) == ([], {"lost_to_infrastructure": 1})
    with pytest.raises(
        FileNotFoundError, match=r"has no trajectories.jsonl: name the work directory"
    ):
        read_run(tmp_path)


def test_the_command_writes_what_sft_reads(tmp_path, monkeypatch, capsys):
    run = write_run(
        tmp_path / "mine", view_of(solution(6, 7)), view_of("no", is_correct=False, sample=3)
    )
    out, record = tmp_path / "own.jsonl", tmp_path / "out.json"
    flags = ["--run", str(run), "--out", str(out), "--json", str(record)]
    monkeypatch.setattr(sys, "argv", ["select", *flags])
    select_demonstrations.main()
    [row] = read_rows(out)
    assert row == demonstration_row(read_run(run)[0])
    assert row["messages"][1] == {"role": "assistant", "content": solution(6, 7)}
    assert (row["answer"], row["calls"]) == ("42", 1)
    assert json.loads(record.read_text()) == {
        "answers": 2,
        "chosen": 1,
        "questions": 1,
        "calls": 1,
        "left_out": {"wrong_answer": 1},
    }
    assert "1 of 2 answers, to 1 questions, with 1 calls" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["select", *flags, "--min_calls", "2"])
    with pytest.raises(ValueError, match="no answer of 2 is chosen"):
        select_demonstrations.main()


def test_right_answers_of_an_evaluation_become_demonstrations(tmp_path, monkeypatch, capsys):
    parts = (Part(author="policy", text="Six times seven: <answer>\\boxed{42}</answer>", tokens=9),)
    records = [
        answer("base", 0, 0, right=True, calls=2, parts=parts),
        answer("base", 0, 1, right=True, calls=1, parts=parts),
        answer("base", 1, 0, right=False, parts=parts),
        answer("base", 1, 1, is_lost=True, parts=()),
    ]
    write_evaluation(tmp_path / "eval", records)
    [best] = select(read_evaluation(f"{tmp_path / 'eval'}:base"), SelectionSettings()).chosen
    assert (best.calls, best.question, best.answer) == (1, "What is 0 + 1?", "1")
    assert best.source == "eval base sampled 2 q0 sample 1"
    out = tmp_path / "own.jsonl"
    flags = ("--evaluation", str(tmp_path / "eval"), "--out", str(out))
    monkeypatch.setattr(sys, "argv", ["select_demonstrations", *flags])
    select_demonstrations.main()
    [row] = read_rows(out)
    assert row["messages"][1]["content"] == parts[0].text
    assert "1 of 3 answers" in capsys.readouterr().out


def test_an_evaluation_that_makes_no_demonstrations_is_refused(tmp_path, monkeypatch):
    write_evaluation(tmp_path / "turns", [answer(right=True)], renderer="hermes")
    with pytest.raises(ValueError, match=r"'hermes' writes results as turns"):
        read_evaluation(str(tmp_path / "turns"))
    without = answer(right=True, has_tools=False, max_tool_calls=0)
    write_evaluation(tmp_path / "without", [without])
    with pytest.raises(ValueError, match=r"holds no answer with tools"):
        read_evaluation(str(tmp_path / "without"))
    monkeypatch.setattr(sys, "argv", ["select_demonstrations", "--out", str(tmp_path / "x.jsonl")])
    with pytest.raises(ValueError, match="whose answers"):
        select_demonstrations.main()
