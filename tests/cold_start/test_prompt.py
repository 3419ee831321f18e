"""The prompt of the rewriter: every field in its place, in one pass; a template of one's own is checked."""

import re

import pytest

from jaxtool.cold_start.prompt import load_prompt
from jaxtool.cold_start.source_rows import SourceRow
from jaxtool.cold_start.traces import read_trace
from jaxtool.renderers.conversations import Turn
from jaxtool.renderers.renderer import load_renderer

RETOOL = load_renderer("retool")
ROW = SourceRow(
    where="f:1",
    row_id="f/1",
    question="What is {{answer}} and \\boxed{6}?",
    reasoning="Six. {{question}}",
    answers=("6", "six"),
)


def test_our_template_has_the_row_and_the_renderers_tags():
    text = load_prompt(None, RETOOL, "stateless").of(ROW)
    assert "What is {{answer}} and \\boxed{6}?" in text  # a row's own text is not filled again
    assert "Six. {{question}}" in text
    assert "known to be: 6" in text
    assert "<answer>\\boxed{result}</answer>" in text
    assert "400 characters" in text
    assert "starts from nothing" in text
    assert "share their names" in load_prompt(None, RETOOL, "session").of(ROW)


def test_the_example_that_the_rewriter_is_shown_is_read():
    text = load_prompt(None, RETOOL, "stateless").text
    shown = [
        re.findall(rf"<{tag}>.*?</{tag}>", text, re.DOTALL)[0]
        for tag in ("code", "interpreter", "answer")
    ]
    turn = Turn(role="assistant", text="\n".join(shown), key="it")
    assert read_trace([turn], RETOOL).segments[0].output == "120"


def test_a_renderer_whose_answers_have_no_tag():
    text = load_prompt(None, load_renderer("two_shot_code"), "stateless").text
    assert "\n\\boxed{result}\n" in text


def test_renderers_without_tags_around_programs_are_refused():
    for name in ("hermes", "react", "torl"):
        with pytest.raises(ValueError, match="has no tags around programs and outputs"):
            load_prompt(None, load_renderer(name), "stateless")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a\n{{queston}} {{reasoning}}",
            r"own.txt:2: \{\{queston\}\} is no placeholder: did you mean question\?",
        ),
        (
            "{{question}} {{reasoning}} {{zzz}}",
            r"there are answer, answer_example, call_example, max_out",
        ),
        ("{{question}}", r"\{\{reasoning\}\} is missing: write it where the reasoning goes"),
    ],
)
def test_a_wrong_template_is_one_line(tmp_path, text, message):
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_prompt(path, RETOOL, "stateless")


def test_a_template_of_ones_own(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("{{ question }}|{{reasoning}}|\\boxed{x}")
    assert load_prompt(path, RETOOL, "stateless").of(ROW).endswith("|Six. {{question}}|\\boxed{x}")
    with pytest.raises(FileNotFoundError, match="no prompt template"):
        load_prompt(tmp_path / "none.txt", RETOOL, "stateless")
