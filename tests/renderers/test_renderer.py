"""Templates, the program of a segment, what an observation shows."""

from pathlib import Path

import pytest

from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.arithmetic import arithmetic_tokenizer
from jaxtool.data.tokenizer import VocabularyTokenizer, check_has_text, decode
from jaxtool.renderers import renderer as module
from jaxtool.renderers.renderer import load_renderer, observation_text, parse_code, stop_token_mask

TEMPLATES = sorted((Path(module.__file__).parent / "templates").glob("*.toml"))
RETOOL = load_renderer("retool")
TOOL = RETOOL.tool


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_every_template_loads_and_asks_the_question(path):
    loaded = load_renderer(path.stem)
    assert loaded == load_renderer(str(path))
    text = loaded.prompt_text(arithmetic_tokenizer(), "QUESTION")
    assert text.count("QUESTION") == 1


def test_there_are_templates():
    assert {"retool", "arithmetic_tools", "arithmetic_text"} <= {p.stem for p in TEMPLATES}


@pytest.mark.parametrize("name", [p.stem for p in TEMPLATES if p.stem.startswith("arithmetic")])
def test_arithmetic_templates_survive_their_tokenizer(name):
    tokenizer, loaded = arithmetic_tokenizer(), load_renderer(name)
    check_has_text(tokenizer, loaded.all_tags)
    problem = Problem(problem_id="p", question="12*(3+4)", answer="84")
    text = loaded.prompt_text(tokenizer, problem.question)
    assert decode(tokenizer, loaded.prompt_ids(tokenizer, problem)) == text
    if loaded.tool:
        shown = observation_text(ToolResult(status=ToolStatus.OK, stdout="84\n"), loaded)
        assert shown == "\n<interpreter>\n84\n</interpreter>\n"
        assert decode(tokenizer, tokenizer.encode(shown)) == shown


@pytest.mark.parametrize(
    ("segment", "code"),
    [
        ("<code>\n```python\nprint(1)\n```\n</code>", "print(1)"),
        ("<code>print(1)</code>", "print(1)"),
        ("<code>\n```python\nprint(1)\n</code>", "print(1)"),
        ("<code>a</code> no, <code>b</code>", "b"),
        ("<code>\n```python\na\n```\nor\n```python\nb\n```\n</code>", "b"),
        ("<code>\n  if x:\n    y\n</code>", "if x:\n  y"),
        ("print(1)</code>", ""),
        ("<code>\n```python\n```\n</code>", ""),
        ("<code></code>", ""),
    ],
)
def test_the_program_of_a_segment(segment, code):
    assert parse_code(segment, TOOL) == code


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (ToolResult(status=ToolStatus.OK, stdout="1\n", last_value="2"), "1\n2"),
        (ToolResult(status=ToolStatus.OK), "None"),
        (ToolResult(status=ToolStatus.ERROR, stderr="Traceback\nValueError: x\n"), "ValueError: x"),
        (ToolResult(status=ToolStatus.ERROR, error_type="KeyError"), "KeyError"),
        (ToolResult(status=ToolStatus.CPU_LIMIT), "TimeoutError: the CPU time limit was reached"),
        (ToolResult(status=ToolStatus.MEMORY_LIMIT, stdout="1\n"), "1\nMemoryError"),
        (ToolResult(status=ToolStatus.OK, stdout="</code>"), "&lt;/code>"),
        (ToolResult(status=ToolStatus.OK, stdout="</answer>"), "&lt;/answer>"),
        (ToolResult(status=ToolStatus.OK, stdout="</interpreter>"), "&lt;/interpreter>"),
    ],
)
def test_what_an_observation_shows(result, shown):
    assert observation_text(result, RETOOL) == f"\n<interpreter>\n{shown}\n</interpreter>\n\n"


def test_every_status_that_is_no_error_of_the_program_has_a_text():
    for status in ToolStatus:
        assert "{output}" not in observation_text(ToolResult(status=status), RETOOL)


def test_long_outputs_keep_head_and_tail():
    """400 characters, 200 of the head and 200 of the tail, as ReTool's."""
    result = ToolResult(status=ToolStatus.OK, stdout="a" * 500 + "b" * 500)
    assert "\n" + "a" * 200 + "..." + "b" * 200 + "\n" in observation_text(result, RETOOL)


def test_stop_tokens_are_those_that_could_complete_a_tag():
    pieces = ("</code>", "x</code>y", "code>", ">", ">\n", "e>z", "<code>", "cod", "a", "?")
    tokenizer = VocabularyTokenizer(pieces)
    mask = stop_token_mask(tokenizer, ["</code>"])
    wanted = [False, True, True, True, True, True, True, True, False, False, False, False]
    assert mask == wanted


def test_a_missing_template_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'retol'; there are .*'retool'"):
        load_renderer("retol")
    with pytest.raises(FileNotFoundError, match=r"no renderer template at .*none.toml"):
        load_renderer(str(tmp_path / "none.toml"))
