"""The checks by name, with a policy's own tokenizer: what `sft` could not write falls out before it is trained on."""

import asyncio

import pytest
from helpers.demonstration_rows import ArithmeticSandbox, solution, write_rows
from helpers.judging import AllRight
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.cold_start.files import DemonstrationLayout, read_candidates, read_references
from jaxtool.cold_start.pipeline import (
    CheckOptions,
    OpenTools,
    read_options,
    write_demonstrations,
)
from jaxtool.cold_start.source_rows import SourceLayout
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.renderers.demonstrations import DemonstrationFile


def row(question, *texts, system=""):
    roles = [("system", system)] * bool(system) + [("user", question)]
    roles += [("tool" if i % 2 else "assistant", text) for i, text in enumerate(texts)]
    return {"messages": [{"role": role, "content": text} for role, text in roles]}


def checked(tmp_path, rows, **options):
    checker = read_options(CheckOptions(**options))
    path = write_rows(tmp_path / "rows.jsonl", rows)
    candidates = read_candidates(path, DemonstrationLayout(), {})
    with asyncio.Runner() as runner:
        tools = OpenTools(runner=runner, sandbox=ArithmeticSandbox(), judge=AllRight())  # pyright: ignore[reportArgumentType]
        return checker, checker.check(candidates, tools)


def test_a_tokenizer_finds_its_control_tokens_and_what_is_too_long(tmp_path):
    tokenizer = write_byte_level(tmp_path / "tokenizer")
    rows = [
        row("Short?", solution(6, 7)),
        row("Spelled?", f"<|endoftext|>{solution(6, 7)}"),
        row("Long?", f"{'very ' * 500}{solution(6, 7)}"),
    ]
    checker, found = checked(tmp_path, rows, tokenizer=tokenizer, row_tokens=1500)
    assert [each.candidate.question for each in found.kept] == ["Short?"]
    assert [(each.step, each.reason) for each in found.rejected] == [
        ("reply", "control_token"),
        ("sft", "unfit"),
    ]
    assert "tokens, more than --row_tokens 1500" in found.rejected[1].detail
    out = tmp_path / "out.jsonl"
    write_demonstrations(out, found, checker.renderer)
    file = DemonstrationFile(path=str(out))
    file.check_rows(1500, renderer=checker.renderer, tokenizer=tokenizer_from_dir(tokenizer))


def test_the_renderers_own_tags_are_no_control_tokens_here(tmp_path):
    """This tokenizer has <code> as a special token."""
    tokenizer = write_byte_level(tmp_path / "tokenizer")
    assert "<code>" in tokenizer_from_dir(tokenizer).control_tokens.values()
    _, found = checked(tmp_path, [row("Short?", solution(6, 7))], tokenizer=tokenizer)
    assert len(found.kept) == 1


def test_calls_by_name_stay_turns(tmp_path):
    call = '<tool_call>{"name": "python", "arguments": {"code": "print(6 * 7)"}}</tool_call>'
    rows = [row("Six times seven?", call, "42", "So \\boxed{42}", system="Be brief.")]
    checker, found = checked(tmp_path, rows, renderer="hermes")
    assert [each.row(checker.renderer)["messages"] for each in found.kept] == [rows[0]["messages"]]


def test_a_session_of_steps_is_counted(tmp_path):
    rows = [row("One?", solution(1, 2)), row("Two?", solution(2, 2, output=9)), row("Three?", "no")]
    _, found = checked(tmp_path, rows)
    assert dict(found.entered) == {
        "reply": 3,
        "form": 3,
        "programs": 2,
        "sft": 1,
        "answer": 1,
        "repetition": 1,
        "contamination": 1,
    }


def test_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--row_tokens 5 needs --tokenizer"):
        CheckOptions(row_tokens=5)
    with pytest.raises(ValueError, match="calls no python"):
        read_options(CheckOptions(renderer="otc_search"))
    with pytest.raises(ValueError, match="there is no judge 'maths'"):
        read_options(CheckOptions(judge="maths"))
    with pytest.raises(FileNotFoundError, match=r"give --against \[KEY=\]FILE"):
        read_options(CheckOptions(against=("problem=none.jsonl",)))
    path = write_rows(tmp_path / "test.jsonl", [{"question": "q"}])
    with pytest.raises(ValueError, match=r"test.jsonl:1: no problem: the row has"):
        read_options(CheckOptions(against=(f"problem={path}",)))


def test_references_and_marks_that_do_not_fit_are_one_line(tmp_path):
    twice = [{"question": "q", "answer": 1}, {"question": " q", "answer": 2}]
    with pytest.raises(ValueError, match=r"b.jsonl:2: .* that a line before answers"):
        read_references(write_rows(tmp_path / "b.jsonl", twice), SourceLayout())
    path = write_rows(tmp_path / "a.jsonl", [row("q", "x")])
    with pytest.raises(
        ValueError, match=r"a.jsonl:1: messages\[0\]: the user's message lacks 'Q:'"
    ):
        read_candidates(path, DemonstrationLayout(question_after="Q:"), {})
    with pytest.raises(FileNotFoundError, match="no demonstrations at"):
        read_candidates(tmp_path / "none.jsonl", DemonstrationLayout(), {})
    with pytest.raises(ValueError, match="holds no demonstrations"):
        read_candidates(write_rows(tmp_path / "c.jsonl", []), DemonstrationLayout(), {})
