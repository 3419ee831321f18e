"""Demonstrations of a file: what is learned of a row, and the order in which rows come."""

import json

import pytest
from helpers.chat_of_letters import ChatOfLetters

from jaxtool.core.types import Origin
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.conversations import read_conversations
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import load_renderer

RESPONSE = (
    "So\n<code>\n```python\nprint(6*7)\n```\n</code>\n<interpreter>\n42\n</interpreter>\n\n"
    "<answer>\\boxed{42}</answer>"
)


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(question="6*7?", response=RESPONSE):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": response}]
    return {"messages": turns}


def take(source, count=1, *, seed=0, index=0):
    renderer, tokenizer = load_renderer("retool"), ChatOfLetters()
    return source.take(count, seed=seed, index=index, renderer=renderer, tokenizer=tokenizer)


def questions(source, count, *, seed=0, index=0):
    return [t.problem.question for t in take(source, count, seed=seed, index=index)]


def test_the_interpreters_text_of_a_row_carries_no_loss(tmp_path):
    (trajectory,) = take(DemonstrationFile(path=write(tmp_path / "a.jsonl", row())))
    trajectory.check()
    assert trajectory.response_text == RESPONSE

    def text_of(origin):
        return decode(ChatOfLetters(), trajectory.ids[trajectory.origins == origin].tolist())

    assert text_of(Origin.TOOL) == "\n<interpreter>\n42\n</interpreter>\n\n"
    learned = RESPONSE.replace("\n<interpreter>\n42\n</interpreter>\n\n", "")
    assert text_of(Origin.POLICY) == learned
    assert "Problem: 6*7?" in text_of(Origin.PROMPT)


def test_text_after_the_answer_is_dropped(tmp_path):
    path = write(tmp_path / "a.jsonl", row(response=RESPONSE + "\nDone."))
    (trajectory,) = take(DemonstrationFile(path=path))
    assert trajectory.response_text == RESPONSE


def test_the_question_is_what_follows_a_marker(tmp_path):
    rows = (row("Use tools.\n*user question:*\n 6*7? \n"), row("6*8?"))
    source = DemonstrationFile(
        path=write(tmp_path / "a.jsonl", rows[0]), question_after="*user question:*"
    )
    assert questions(source, 1) == ["6*7?"]
    source = DemonstrationFile(path=write(tmp_path / "b.jsonl", *rows), question_after="*user que")
    with pytest.raises(
        ValueError, match=r"b\.jsonl:2: messages\[0\]: the user's message lacks '\*user que'"
    ):
        take(source)


def test_each_row_comes_once_a_pass_in_an_order_of_its_own(tmp_path):
    path = write(tmp_path / "a.jsonl", *(row(f"q{i}") for i in range(10)))
    seen = [
        q for index in range(10) for q in questions(DemonstrationFile(path=path), 4, index=index)
    ]
    passes = [seen[at : at + 10] for at in range(0, 40, 10)]
    assert all(sorted(each) == [f"q{i}" for i in range(10)] for each in passes)
    assert len({tuple(each) for each in passes}) == 4
    # A batch is a function of (seed, index): not of the batches that were taken before it.
    assert questions(DemonstrationFile(path=path), 4, index=7) == seen[28:32]
    assert questions(DemonstrationFile(path=path), 10, seed=1) != passes[0]
    assert len(questions(DemonstrationFile(path=path), 25)) == 25


def test_rows_and_files_that_cannot_be_learned_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", row(), {"messages": row()["messages"][:1]})
    with pytest.raises(ValueError, match=r"a\.jsonl:2: the row needs a user and an assistant"):
        take(DemonstrationFile(path=path))
    (tmp_path / "b.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=r"b\.jsonl' holds no demonstrations"):
        take(DemonstrationFile(path=str(tmp_path / "b.jsonl")))
    with pytest.raises(FileNotFoundError, match=r"no demonstrations at .*c\.jsonl"):
        take(DemonstrationFile(path=str(tmp_path / "c.jsonl")))


def test_blank_lines_are_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n" + json.dumps(row("q")) + "\n\n")
    (conversation,) = read_conversations(tmp_path / "a.jsonl")
    assert (conversation.name, conversation.question) == ("a/2", "q")
    assert conversation.turns[-1].text == RESPONSE
