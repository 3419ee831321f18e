"""Which tags of a policy's text count: those of open programs are text, whatever their tokenisation."""

import ast
import dataclasses
import json
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from jaxtool.core.calls import Call
from jaxtool.renderers.policy_text import PolicyTextReader, Stop, Tags
from jaxtool.renderers.renderer import load_renderer, parse_code

RETOOL = load_renderer("retool")
TAGS = RETOOL.tags
BLOCKS = [
    json.loads(line)
    for line in Path("tests/cases/code_blocks.jsonl").read_text().split("\n")
    if line
]

# Programs in which tags, fences and quotes are text.
PROGRAMS = [
    r"print('<answer>\boxed{7}</answer>')",
    r"x = 7; print(f'<answer>{x}</answer>')",
    "print('</code>')",
    'print("</code>", "<code>")',
    "print('it\\'s </code>')",
    r"print(r'\</code>')",
    r"print('a\\', '</code>')",
    "print(b'</code>')",
    "print(rb'</code>', Rb'```')",
    "print(f'{x}</code>')",
    "print(f'{d[\"</code>\"]}')",
    "print(f'{d['</code>']}')",  # Python 3.12
    "print(f'{f\"{'</code>'}\"}</answer>')",
    "print(f'{x:>10}</code>{y!r:{width}}')",
    "print(f'{{</code>}}')",
    "print(f'''{x:'>9}</code>''')",
    "print(f'{\n    x\n}</code>')",  # Python 3.12
    'print("""</code>\n```\n</answer>""")',
    "print('''\n</code>\n''')",
    "s = '''it's\n<code>\n```python\nprint(1)\n```\n</code>\n'''\nprint(s)",
    'def f():\n    """Docs.\n\n    ```python\n    f()\n    ```\n    """\n    return 1',
    "x = 1  # </code> is no end\nprint(x)",
    "# ```\n# </answer>\nprint(1)",
    "print('a' '</code>' \"b\")",
    "print('')\nprint('</code>')",
    "print('''''')\nprint('</code>')",
    "x = '\\\n</code>'",
    "print('~~~', \"```\")",
    "x = ~~~5\nprint(x)",
    "if a < b and c > d:\n    print('<', '/', '>')",
    "print('é 😀 </code>')",
]
FRAMES = [
    "<code>\n```python\n{}\n```\n</code>",
    "<code>\n{}\n</code>",
    "so\n<code>\n~~~\n{}\n~~~\n</code>",
]


def program_of(stop: Stop) -> str:
    return stop.call.arguments["code"] if isinstance(stop.call, Call) else ""


def stops(text: str, sizes=(1,), tags: Tags = TAGS, prefix: str = "") -> list[tuple[str, str]]:
    """What a reader says of a text that comes in pieces of so many bytes, in turn."""
    reader, raw, found, at = PolicyTextReader(tags, prefix), text.encode(), [], 0
    while at < len(raw):
        size = sizes[len(found) % len(sizes)]
        reader.feed(raw[at : at + size])
        at += size
        while (stop := reader.next_stop()) is not None:
            found.append((stop.kind, program_of(stop)))
    return found


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: case["id"])
def test_the_program_of_every_usual_spelling(case):
    assert RETOOL.tool is not None
    assert parse_code(case["segment"], RETOOL.tool) == case["program"]
    assert stops(case["segment"]) == [("call", case["program"])]


def test_there_are_cases():
    assert len(BLOCKS) >= 19


@pytest.mark.parametrize("frame", FRAMES, ids=["fence", "none", "tildes"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_tags_and_fences_in_strings_and_comments_are_text_of_the_program(program, frame):
    assert RETOOL.tool is not None
    segment = frame.replace("{}", program, 1)
    assert parse_code(segment, RETOOL.tool) == program
    assert stops(segment + "\n") == [("call", program)]
    assert stops(segment, sizes=[len(segment.encode())]) == [("call", program)]


@pytest.mark.parametrize(
    ("body", "program"),
    [
        ("\n```py3\nprint(1)\n```\n", "print(1)"),
        ("\n```PYTHON\nprint(1)\n```\n", "print(1)"),
        ("\n```python3.11\nprint(1)\n```\n", "print(1)"),
        ("\n```{python}\nprint(1)\n```\n", "print(1)"),
        ("\n```{.python .numberLines}\nprint(1)\n```\n", "print(1)"),
        ("\n```python:main.py\nprint(1)\n```\n", "print(1)"),
        ("\n```\tpython\t\nprint(1)\n```  \n", "print(1)"),
        ("\n```ipython\nprint(1)\n```\n", "print(1)"),
        ("\n~~~\nprint(1)\n~~~\n", "print(1)"),
        ("\n~~~~ py\nprint(~~~1)\n~~~~\n", "print(~~~1)"),
        ("\n````python\nprint('```')\n````\n", "print('```')"),
        ("```\nprint(1)\n```", "print(1)"),
        ("```print(1)```", "print(1)"),
        ("```x = 1\nprint(x)```", "x = 1\nprint(x)"),
        ("\nRun: ```python\nprint(1)\n```\n", "print(1)"),
        ("\nLet's run:\n```python\nprint(1)\n```\nThat's it.\n", "print(1)"),
        ("\n```python\nprint(1)\n```\n```\n", "print(1)"),
        ("\n```python\nprint(1)\n```\nOutput:\n```\n1\n```\n", "print(1)"),
        ("\n```text\n1\n```\n```python\nprint(1)\n```\n", "print(1)"),
        ("\n```\nold\n```\nor\n```\nprint(1)\n```\n", "print(1)"),
        ("\n```python\nold\n```python\nprint(1)\n```\n", "print(1)"),
        ("\r\n```py\r\nif x:\r\n  y\r\n```\r\n", "if x:\r\n  y"),
        ("\n- so:\n\n  ~~~py\n  if x:\n      y\n  ~~~\n", "if x:\n    y"),
        ("\n\t```\n\tx = 1\n\n\tprint(x)\n\t```\n", "x = 1\n\nprint(x)"),
        ("\n    x = 1\n    if x:\n        y\n", "x = 1\nif x:\n    y"),
        ("\n    # first\n    x = '''\n  a\n'''\n    y\n", "# first\nx = '''\n  a\n'''\ny"),
        ("\n# at the margin\n    x = 1\n    y\n", "# at the margin\nx = 1\ny"),
        (" x = 1\ny = 2\n", "x = 1\ny = 2"),
        (" x = 1\n       y = 2\n", "x = 1\ny = 2"),
        (" if x:\n   y = 2\n", "if x:\n   y = 2"),
        ("\n  x = 1\ny = 2\n", "  x = 1\ny = 2"),  # Python's own IndentationError
        ("\n\n  \n", ""),
        ("\n```\n\n```\n", ""),
        ("\n```python\n```\n```py\n  \n```", ""),
    ],
)
def test_fences_blanks_and_indents(body, program):
    assert RETOOL.tool is not None
    segment = f"<code>{body}</code>"
    assert parse_code(segment, RETOOL.tool) == program
    assert stops(segment) == [("call", program)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<answer>4</answer>", [("answer", "")]),
        ("4</answer>", []),
        ("write </answer> then <answer>4", []),
        ("</answer><answer>4</answer>", [("answer", "")]),
        ("stray</code> tag", [("call", "")]),
        ("<code>a</code> no, <code>b</code>", [("call", "a"), ("call", "b")]),
        ("<code>old\nno wait\n<code>b</code>", [("call", "b")]),
        ("<code>```python\nold\n<code>```python\nb\n```</code>", [("call", "b")]),
        # A mention of the tag opens what is never a program: the answer still counts.
        ("I use <code> here.\n<answer>4</answer>", [("answer", "")]),
        ("I won't use <code>, it's easy.\n<answer>4</answer>\n", [("answer", "")]),
        # A fence that is open holds program text only; a closed one holds no more.
        ("<code>\n```python\n<answer>4</answer>\n", []),
        ("<code>\n```python\nx\n```\n<answer>4</answer>", [("answer", "")]),
        ("<code>print('<answer>')\n</answer>", []),
        ("<code>print('<answer>')</code></answer>", [("call", "print('<answer>')")]),
        # An opening tag before the observation is none for what follows: each segment is scored alone.
        ("<answer><code>x</code></answer>", [("call", "x"), ("answer", "")]),
    ],
)
def test_which_tags_count(text, found):
    assert stops(text) == found


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<code>print('a)</code>\n", "print('a)"),  # no string ends beyond its line
        ("<code>\n```python\nprint('a)\n```\n</code>", "print('a)"),
        ("<code>\nprint(f'{x)\n</code>", "print(f'{x)"),
        ("<code>\n```\nprint(f\"{x')\n```\n</code>", "print(f\"{x')"),
        ("<code>print(4)  # four</code>\n<interpreter>\n4", "print(4)  # four"),
    ],
)
def test_a_quote_or_comment_that_swallowed_the_tag_gives_it_back(text, program):
    assert stops(text) == [("call", program)]


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("<code>print('a)</code>", "print('a)"),
        ("<code>print(4)  # four</code>", "print(4)  # four"),
        ('<code>\n```python\nprint("""a)\n```\n</code>', 'print("""a)'),
        ('<code>\nprint("""a)\n</code> and\n</code>', 'print("""a)\n</code> and'),
    ],
)
def test_a_program_that_never_closes_is_cut_at_the_last_tag_once_the_text_has_ended(text, program):
    assert RETOOL.tool is not None
    assert stops(text) == []
    assert parse_code(text, RETOOL.tool) == program


def test_a_prefix_of_the_renderer_opens_what_the_policy_closes():
    assert stops("7}</answer>", prefix="<answer>\\boxed{") == [("answer", "")]
    assert stops("1)\n```\n</code>", prefix="<code>\n```python\nprint(") == [("call", "print(1)")]


@pytest.mark.parametrize("fence", ["", "```python", "~~~"])
def test_what_demonstrations_write_decides_nothing(fence):
    assert RETOOL.tool is not None
    tool = dataclasses.replace(RETOOL.tool, fence=fence)
    for segment in ("<code>print(1)</code>", "<code>\n```py\nprint(1)\n```\n</code>"):
        assert parse_code(segment, tool) == "print(1)"
    assert parse_code(tool.fenced("print(1)"), tool) == "print(1)"


def test_where_a_tag_ends_is_told_without_the_prefix():
    reader = PolicyTextReader(TAGS, "<code>")
    reader.feed("x = 'é'</code> 4".encode())
    stop = reader.next_stop()
    assert stop is not None
    assert (program_of(stop), stop.end) == ("x = 'é'", len("x = 'é'</code>"))


def test_tags_that_are_fences_themselves():
    tags = Tags(code_open="```python", code_close="```", answer_close="</answer>")
    text = "so\n```python\nprint('```')\n```\nand\n```python\nb\n```\n4</answer>"
    for sizes in ([1], [2], [3, 1], [len(text)]):
        assert stops(text, sizes, tags) == [("call", "print('```')"), ("call", "b"), ("answer", "")]


def test_no_tags_no_stops():
    assert stops("<code>x</code><answer>4</answer>", tags=Tags()) == []


PARTS = [
    "<code>",
    "</code>",
    "<answer>",
    "</answer>",
    "<interpreter>",
    "```",
    "```py",
    "~~~",
    "python",
]
PARTS += [
    "'",
    '"',
    "'''",
    '"""',
    "f'",
    'f"""',
    "{",
    "}",
    ":",
    "#",
    "\\",
    "\n",
    "\r\n",
    " ",
    "x",
    "é",
    "<",
    "`",
]


@hypothesis.given(
    strategies.lists(strategies.sampled_from(PARTS), max_size=24),
    strategies.lists(strategies.integers(1, 7), min_size=1, max_size=3),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_what_counts_does_not_depend_on_the_pieces(parts, sizes):
    text = "<code>" + "".join(parts)
    assert stops(text, sizes) == stops(text, [10**6])


@hypothesis.given(strategies.lists(strategies.sampled_from(PARTS), max_size=16))
@hypothesis.settings(max_examples=200, deadline=None)
def test_no_python_that_runs_is_cut(parts):
    """Whatever Python accepts comes out whole, between tags on lines of their own.

    But for `a <code> b`: Python reads two comparisons there, and the reader a new program.
    """
    program = "".join(part for part in parts if part != "\r\n").strip()
    try:
        tree = ast.parse(program)
    except (SyntaxError, ValueError):
        return
    hypothesis.assume(not any(isinstance(node, ast.Compare) for node in ast.walk(tree)))
    hypothesis.assume(tree.body and "code>" not in program.split("#")[-1].split("\n")[0])
    found = stops(f"<code>\n```python\n{program}\n```\n</code>")
    assert len(found) == 1
    assert ast.dump(ast.parse(found[0][1])) == ast.dump(tree)


def test_a_degenerate_text_costs_no_more_than_its_length():
    """Quadratic reading of these would take minutes."""
    for piece in ("f'{", "f'{'", "\\'", 'f"""{f\'', "{'a':", "```", "<co", "''", "f'{x:"):
        text = "<code>" + piece * 20_000 + "\n</code>"
        stops(text, [len(text)])
