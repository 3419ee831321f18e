"""Renderer files: every key is read, of its type and one of its choices, or refused with its line."""

import re
from pathlib import Path

import pytest

from jaxtool.renderers import renderer as module
from jaxtool.renderers.renderer import load_renderer

FOLDER = Path(module.__file__).parent / "templates"
TEXT = (FOLDER / "arithmetic_tools.toml").read_text()


def refusal(tmp_path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="mine") as caught:
        load_renderer(str(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[answer]", "[anser]", "anser is no table of a renderer: did you mean answer?"),
        ("[format]", "[other]", "other is no table of a renderer: there are messages"),
        ('fence = "', 'fences = "', "tool.fences = '```python' is no key of this table: did you"),
        ('role = "user"', 'role = "usr"', "messages[0].role must be system, developer, user, assi"),
        ('role = "user"', "role = 1", "messages[0].role = 1 must be text: put it in quotes"),
        ("= 24", '= "24"', "tool.max_output_chars = '24' must be a whole number: write digits"),
        ("= 24", "= 24.0", "tool.max_output_chars = 24.0 must be a whole number"),
        ("= 24", "= true", "tool.max_output_chars = True must be a whole number"),
        ("= 24", "= 0", "tool.max_output_chars = 0 must be 1 or more"),
        ("= false", '= "false"', "format.uses_chat_template = 'false' must be true or false: wri"),
        ("= false", "= 0", "format.uses_chat_template = 0 must be true or false"),
        (
            'style = "boxed"',
            'style = "banana"',
            "answer.style must be boxed, answer_tag or response, ",
        ),
        ('close = "</answer>"', "close = 1", "answer.close = 1 must be text"),
        ('close = "</answer>"', 'close = "</code>"', "answer.close = '</code>' is a tag of the"),
        ('style = "boxed"', 'style = "boxed"\nopen = ""', "answer.open = '' must not be empty"),
        ('"</answer>"\nstyle = "boxed"', '"END"\nstyle = "answer_tag"', "answer.open is missing"),
        ('"last_line"', '"first_line"', "tool.error_style must be last_line or traceback, got 'fi"),
        ('code_open = "<code>"', 'code_open = " "', "tool.code_open must not be empty: give a ta"),
        ('"</code>"', '"<code>"', "tool.code_close = '<code>' must not be the opening tag"),
        ('fence = "```python"', 'fence = "python"', "tool.fence = 'python' must be three or more"),
        ('fence = "```python"', "fence = false", "tool.fence = False must be text"),
        (
            "{output}",
            "output",
            "tool.observation = '\\n<interpreter>\\noutput\\n</interpreter>\\n' l",
        ),
        ("{question}", "question", "messages: no message holds {question}"),
        (
            'empty_output = "None"',
            'empty_output = "None"\nprelude = "x ="',
            "tool.prelude is no Py",
        ),
        (
            'empty_output = "None"',
            'empty_output = "None"\nprelude = []',
            "tool.prelude = [] must be",
        ),
    ],
)
def test_a_fault_names_line_key_value_and_remedy(tmp_path, old, new, message):
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    told = refusal(tmp_path, text)
    assert message in told
    key = re.search(r": (?:\w+(?:\[\d+\])?)\.(\w+)", told)
    if key and f"\n{key[1]} =" in text:
        place = line_of(text, f"\n{key[1]} =") + 1
        assert f":{place}: " in told


@pytest.mark.parametrize(
    "key",
    [
        *("role", "content", "uses_chat_template", "response_prefix", "code_open", "code_close"),
        *("fence", "observation", "max_output_chars", "error_style", "empty_output", "close"),
        "style",
    ],
)
def test_every_key_but_the_prelude_is_required(tmp_path, key):
    text = re.sub(rf"^{key} = .*\n", "", TEXT, flags=re.MULTILINE)
    assert re.search(
        rf"mine.toml:\d+: \w+(\[0\])?\.{key} is missing: add it, ", refusal(tmp_path, text)
    )


@pytest.mark.parametrize("table", ["format", "answer"])
def test_a_missing_table_is_named(tmp_path, table):
    text = re.sub(rf"^\[{table}\]\n(.+\n?)+", "", TEXT, flags=re.MULTILINE)
    assert f"{table} is missing: add the table" in refusal(tmp_path, text)


def test_what_is_no_table_is_refused(tmp_path):
    rest = TEXT[TEXT.index("[format]") :]
    assert ":1: messages = [] must be one table or more" in refusal(
        tmp_path, f"messages = []\n{rest}"
    )
    assert "messages = 'x' must be" in refusal(tmp_path, f"messages = 'x'\n{rest}")
    without_answer = TEXT[: TEXT.index("[answer]")]
    assert ":1: answer = 3 must be a table" in refusal(tmp_path, f"answer = 3\n{without_answer}")


def test_the_second_message_has_its_own_line(tmp_path):
    text = TEXT.replace("[format]", '[[messages]]\nrole = "user"\ncontent = 3\n\n[format]')
    told = refusal(tmp_path, text)
    place = line_of(text, "content = 3")
    assert f":{place}: messages[1].content = 3 must be text" in told


def test_a_file_that_is_no_toml_or_no_utf_8_is_named(tmp_path):
    assert "not TOML: " in refusal(tmp_path, "[tool\n")
    path = tmp_path / "mine.toml"
    path.write_bytes("# é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine\.toml: not UTF-8 at byte 2: save it as UTF-8"):
        load_renderer(str(path))


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_carriage_returns_change_nothing(tmp_path, change):
    path = tmp_path / "arithmetic_tools.toml"
    path.write_bytes(change(TEXT).encode())
    assert load_renderer(str(path)) == load_renderer("arithmetic_tools")


def test_a_prelude_ends_in_a_newline_whether_written_or_not(tmp_path):
    for written in ('"a = 1"', '"""\na = 1\n"""'):
        path = tmp_path / "mine.toml"
        path.write_text(TEXT.replace('"None"', f'"None"\nprelude = {written}'))
        tool = load_renderer(str(path)).tool
        assert tool is not None
        assert tool.with_prelude("print(a)") == "a = 1\nprint(a)"
    plain = load_renderer("arithmetic_tools").tool
    assert plain is not None
    assert plain.with_prelude("print(a)") == "print(a)"


@pytest.mark.parametrize(
    ("close", "opening"), [("</final>", "<final>"), ("[/A]", ""), ("END", ""), ("", "")]
)
def test_the_opening_answer_tag_follows_from_the_closing_one(tmp_path, close, opening):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.replace('"</answer>"', f'"{close}"'))
    assert load_renderer(str(path)).tags.answer_open == opening
    path.write_text(path.read_text() + '\nopen = "[A]"\n')
    assert load_renderer(str(path)).tags.answer_open == ("[A]" if close else "")


def test_the_template_that_explains_every_key_names_what_there_is():
    text = (FOLDER / "retool.toml").read_text()
    comments = " ".join(re.findall(r"^# (.*)$", text, re.MULTILINE))
    assert "RlConfig.renderer" in comments
    assert "ProtocolFile" not in comments
