"""Templates whose tags name tools: a code tool and tools that take a text, in one response."""

import re

import pytest
from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import splitting_tokenizer

from jaxtool.core.calls import Call, InvalidCall, ToolSpec
from jaxtool.core.types import Origin, Problem, ToolResult, ToolStatus
from jaxtool.renderers.ledgers import demonstration, split_response
from jaxtool.renderers.renderer import load_renderer, observation_text
from jaxtool.tools.code_tool import PYTHON_SPEC, CodeTool
from jaxtool.tools.menu import Menu

MESSAGES = '[[messages]]\nrole = "user"\ncontent = "{question}="\n'
FORM = '[format]\nuses_chat_template = false\nresponse_prefix = ""\n'
TOOL = r"""
[tool]
code_open = "<code>"
code_close = "</code>"
fence = ""
observation = "\n<interpreter>\n{output}\n</interpreter>\n"
max_output_chars = 400
error_style = "last_line"
empty_output = "None"
"""
SEARCH = r"""
[[calls]]
tool = "search"
argument = "query"
open = "<search>"
close = "</search>"
observation = "\n<information>{output}</information>\n"
"""
SQUARE = """
[[calls]]
tool = "square"
argument = "x"
open = "<square>"
close = "</square>"
"""
ANSWER = '[answer]\nclose = "</answer>"\nstyle = "answer_tag"\n'
BOTH = MESSAGES + FORM + TOOL + SEARCH + SQUARE + ANSWER


def spec(name, argument, kind, **others):
    return ToolSpec(
        name=name,
        description="",
        parameters={
            "type": "object",
            "properties": {argument: {"type": kind}, **others},
            "required": [argument, *others],
        },
    )


SPECS = (PYTHON_SPEC, spec("search", "query", "string"), spec("square", "x", "integer"))


def renderer_of(tmp_path, text=BOTH, specs=SPECS):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    loaded = load_renderer(str(path))
    return loaded if specs is None else loaded.with_tools(specs)


def calls(renderer, text, size=1):
    """What a reader says of a text that comes in pieces."""
    reader, found = renderer.reader(is_first=True), []
    raw = text.encode()
    for at in range(0, len(raw), size):
        reader.feed(raw[at : at + size])
        while (stop := reader.next_stop()) is not None:
            found.append(stop.call if stop.kind == "call" else "answer")
    return found


EMMA = Call(tool="search", arguments={"query": "who wrote Emma"})


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<search>who wrote Emma</search>", [EMMA]),
        ("so <search>\n who wrote Emma\n</search> and", [EMMA]),
        ("<search>x<search>who wrote Emma</search>", [EMMA]),  # begins anew
        ("<code>1+<search>who wrote Emma</search>", [EMMA]),  # the program is abandoned
        (
            "<search>who<code>print('<search>x</search>')</code>",
            [Call.python("print('<search>x</search>')")],
        ),
        (
            "<search>it's # `a` \"b</search>",
            [Call(tool="search", arguments={"query": "it's # `a` \"b"})],
        ),
        ("<search> </search>", [None]),
        ("</search>", [None]),
        ("<search>who</square>Emma</search>", [None, None]),
        ("<square>7</square>", [Call(tool="square", arguments={"x": 7})]),
        ("<square>seven</square>", [InvalidCall(reason="x must be JSON, such as 3 or [1, 2]", tool="square")]),
        ("<square>NaN</square>", [InvalidCall(reason="x must be JSON, such as 3 or [1, 2]", tool="square")]),
        ("<search>who wrote Emma</search><answer>Austen</answer>", [EMMA, "answer"]),
        ("<answer>A<search>who wrote Emma</search>usten</answer>", [EMMA, "answer"]),
        ("<search>who <answer>Austen</answer>", ["answer"]),
        ("# <code># <search>who wrote Emma</search>\n2</code>", [Call.python("# <search>who wrote Emma</search>\n2")]),
        ("<search>é 😀</search>", [Call(tool="search", arguments={"query": "é 😀"})]),
    ],
)  # fmt: skip
def test_tags_and_what_stands_between_them(tmp_path, text, expected, size):
    assert calls(renderer_of(tmp_path), text, size) == expected


def test_an_observation_has_the_shape_of_its_tool_and_all_tags_in_it_are_defused(tmp_path):
    renderer = renderer_of(tmp_path)
    result = ToolResult(status=ToolStatus.OK, stdout="a</search><code></information></interpreter>")
    shown = "a&lt;/search>&lt;code>&lt;/information>&lt;/interpreter>"
    assert observation_text(result, renderer, "search") == f"\n<information>{shown}</information>\n"
    assert (
        observation_text(result, renderer, "square")
        == observation_text(result, renderer)
        == f"\n<interpreter>\n{shown}\n</interpreter>\n"
    )


def test_demonstrations_hold_the_observations_of_both_tools(tmp_path):
    renderer = renderer_of(tmp_path)
    search = ("<search>Emma</search>", "\n<information>1815</information>\n")
    code = ("<code>1+1</code>", "\n<interpreter>\n2\n</interpreter>\n")
    text = "".join((*search, *code, "<answer>2</answer>"))
    parts = split_response(text, renderer)
    assert parts == [
        (search[0], Origin.POLICY),
        (search[1], Origin.TOOL),
        (code[0], Origin.POLICY),
        (code[1], Origin.TOOL),
        ("<answer>2</answer>", Origin.POLICY),
    ]
    problem = Problem(problem_id="p", question="1+1", answer="2")
    made = demonstration(problem, text, renderer=renderer, tokenizer=splitting_tokenizer())
    made.check()


def test_a_template_may_have_tools_without_a_code_tool(tmp_path):
    without = "\n".join(line for line in TOOL.split("\n") if not re.match("code|fence", line))
    renderer = renderer_of(tmp_path, MESSAGES + FORM + without + SEARCH + ANSWER, SPECS[1:2])
    assert renderer.stop_tags == ("</search>", "</answer>")
    assert calls(renderer, "<code>1</code><search>who wrote Emma</search>") == [EMMA]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOTH.replace('open = "<search>"', 'open = "<code>"'), r"mine.toml:\d+: calls\[0\].open = '<code>' cannot be told from tool.code_open"),
        (BOTH.replace('open = "<square>"', 'open = "<search>x"'), r"calls\[1\].open = '<search>x' cannot be told from calls\[0\].open"),
        (BOTH.replace('open = "<square>"', 'open = " "'), r"calls\[1\].open must not be empty"),
        (BOTH.replace('tool = "square"', 'tool = "search"'), r"calls\[1\].tool = 'search' has tags already"),
        (BOTH.replace('tool = "square"', 'tool = "python"'), r"calls\[1\].tool = 'python' has tags already"),
        (BOTH.replace('"\\n<information>{output}</information>\\n"', '"x"'), r"mine.toml:\d+: calls\[0\].observation = 'x' lacks {output}"),
        (BOTH.replace('argument = "x"', ""), r"mine.toml:\d+: calls\[1\].argument is missing"),
        (BOTH.replace('argument = "x"', 'arg = "x"'), r"calls\[1\].arg = 'x' is no key of this table"),
        (MESSAGES + FORM + SEARCH + ANSWER, r"calls\[0\] needs a \[tool\] table"),
        (BOTH.replace('close = "</answer>"', 'close = "</search>"'), r"answer.close = '</search>' is a tag of the tool's calls"),
    ],
)  # fmt: skip
def test_a_faulty_template_is_refused_by_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        renderer_of(tmp_path, text, None)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (SPECS[:2], "renderer 'mine' calls 'square', and the run's tools are python, search: add it"),
        ((*SPECS, spec("news", "query", "string")), "cannot call the tool 'news', only python, search, square"),
        ((*SPECS[:2], spec("square", "y", "integer")), "give 'square' its argument 'x', and the tool has no such"),
        ((*SPECS[:2], spec("square", "x", "integer", y={})), "and the tool needs y as well"),
    ],
)  # fmt: skip
def test_tools_that_the_tags_cannot_call_are_refused(tmp_path, specs, message):
    with pytest.raises(ValueError, match=message):
        renderer_of(tmp_path, specs=specs)


def test_the_renderers_of_today_call_python_alone():
    retool = load_renderer("retool")
    assert retool.with_tools(Menu([CodeTool(ArithmeticTool())]).specs).tools == (PYTHON_SPEC,)
    with pytest.raises(ValueError, match="cannot call the tool 'search', only python"):
        retool.with_tools(SPECS[:2])
    mental = load_renderer("arithmetic_mental")
    assert mental.with_tools(SPECS) is mental
