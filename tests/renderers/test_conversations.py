"""Rows of several turns: all are in the ledger, in order, or the row is refused by file, line and key."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.chat_of_letters import ChatOfLetters

from jaxtool.core.types import Origin
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.conversations import read_conversations
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import load_renderer

END = "\u0100"  # the end token of the tokenizer below


class ChatWithEnds(ChatOfLetters):
    """As ChatML: an end token behind every turn."""

    def render_chat(self, messages):
        turns = "".join(f"[{m['role']}]{m['content']}{END}\n" for m in messages)
        return turns + "[assistant]"


@dataclasses.dataclass(frozen=True)
class Rewrites(ChatWithEnds):
    """As Qwen3: the thoughts of earlier turns go once another turn is there."""

    def render_chat(self, messages):
        *earlier, last = messages
        cut = [m | {"content": m["content"].replace("hm ", "")} for m in earlier]
        return super().render_chat([*cut, last])


def turn(role, content, **more):
    return {"role": role, "content": content} | more


def user(text):
    return turn("user", text)


def assistant(text):
    return turn("assistant", text)


def taken(tmp_path, *messages, renderer="two_shot_text", tokenizer=None):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps({"messages": messages}) + "\n")
    tokenizer = tokenizer or ChatWithEnds()
    made = load_renderer(renderer) if isinstance(renderer, str) else renderer
    (one,) = DemonstrationFile(path=str(path)).take(
        1, seed=0, index=0, renderer=made, tokenizer=tokenizer
    )
    one.check()
    return one


def pieces(trajectory):
    """(origin, text) runs of a ledger, end tokens written as they are."""
    cuts = np.flatnonzero(np.diff(trajectory.origins)) + 1
    return [
        (Origin(int(origins[0])).name, "".join(map(chr, ids)))
        for ids, origins in zip(
            np.split(trajectory.ids, cuts), np.split(trajectory.origins, cuts), strict=True
        )
    ]


def refused(tmp_path, *messages, **options):
    with pytest.raises(ValueError, match=r"a\.jsonl:2") as caught:
        taken(tmp_path, *messages, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_assistant_turn_is_learned_and_every_user_turn_is_read(tmp_path):
    one = taken(
        tmp_path,
        user("q1"),
        assistant("a1"),
        user("q2"),
        assistant("a2 \n"),
        user("q3"),
        assistant("a3"),
    )
    prompt, *rest = pieces(one)
    assert prompt[0] == "PROMPT"
    assert "What is q1?" in prompt[1]
    assert rest == [
        ("POLICY", f"a1{END}"),
        ("TOOL", "\n[user]q2" + END + "\n[assistant]"),
        ("POLICY", f"a2{END}"),
        ("TOOL", "\n[user]q3" + END + "\n[assistant]"),
        ("POLICY", f"a3{END}"),
    ]
    assert one.response_text == "a1q2a2q3a3"


def test_the_ledger_of_turns_is_what_the_chat_template_writes(tmp_path):
    one = taken(tmp_path, user("q1"), assistant("a1"), user("q2"), assistant("a2"))
    renderer, tokenizer = load_renderer("two_shot_text"), ChatWithEnds()
    said = [turn(role, text.replace("{question}", "q1")) for role, text in renderer.messages]
    whole = tokenizer.render_chat([*said, assistant("a1"), user("q2")]) + "a2" + END
    assert "".join(text for _, text in pieces(one)) == whole


def test_tool_turns_are_observations_in_the_renderers_tags(tmp_path):
    calls = "<code>\n```python\nprint(1)\n```\n</code>"
    told = "<interpreter>\n2\n</interpreter>"
    one = taken(
        tmp_path,
        user("q"),
        assistant(f"So {calls}\n"),
        turn("tool", "1\n", tool_call_id="x", name="python"),
        assistant(f"again {calls}"),
        turn("tool", told),
        assistant("it is <answer>\\boxed{1}</answer>"),
        renderer="retool",
    )
    assert pieces(one)[1:] == [
        ("POLICY", f"So {calls}"),
        ("TOOL", "\n<interpreter>\n1\n</interpreter>\n\n"),
        ("POLICY", f"again {calls}"),
        ("TOOL", "\n<interpreter>\n2\n</interpreter>\n\n"),
        ("POLICY", "it is <answer>\\boxed{1}</answer>"),
    ]


def test_a_tool_turn_and_a_span_in_the_text_give_the_same_ledger(tmp_path):
    call, seen = "<code>\nprint(1)\n</code>", "\n<interpreter>\n1\n</interpreter>\n\n"
    close = "<answer>1</answer>"
    spans = taken(tmp_path, user("q"), assistant(call + seen + close), renderer="retool")
    turns = taken(
        tmp_path, user("q"), assistant(call), turn("tool", "1"), assistant(close), renderer="retool"
    )
    assert turns.ids.tolist() == spans.ids.tolist()
    assert turns.origins.tolist() == spans.origins.tolist()


def test_a_system_turn_stands_in_front_of_the_prompt(tmp_path):
    one = taken(tmp_path, turn("system", "Be brief."), user("q"), assistant("a"))
    plain = taken(tmp_path, user("q"), assistant("a"))
    text = decode(ChatWithEnds(), one.ids.tolist())
    assert text == "[system]Be brief.\n" + decode(ChatWithEnds(), plain.ids.tolist())
    assert pieces(one)[1:] == [("POLICY", f"a{END}")]


def test_a_system_turn_that_the_renderer_cannot_write_is_refused(tmp_path):
    row = (turn("system", "Be brief."), user("q"), assistant("a"))
    said = refused(tmp_path, *row, renderer="arithmetic_text")
    assert "messages[0] is a system turn" in said
    own = load_renderer("two_shot_text")
    other = dataclasses.replace(own, messages=(("system", "Be long."), *own.messages))
    assert "has another one" in refused(tmp_path, *row, renderer=other)
    same = dataclasses.replace(own, messages=(("system", "Be brief."), *own.messages))
    one = taken(tmp_path, *row, renderer=same)
    assert decode(ChatWithEnds(), one.ids.tolist()).count("Be brief.") == 1
    said = refused(tmp_path, turn("system", "Say {question}"), user("q"), assistant("a"))
    assert "put the question into it" in said


def test_turns_that_cannot_be_written_are_refused_by_name(tmp_path):
    row = (user("q1"), assistant("hm a1"), user("q2"), assistant("a2"))
    assert "no chat template" in refused(tmp_path, *row, renderer="arithmetic_text")
    assert "messages[2]: the chat template writes" in refused(tmp_path, *row, tokenizer=Rewrites())
    assert "no end token" in refused(tmp_path, *row, tokenizer=ChatOfLetters())
    control = (user("q1"), assistant("a1"), user(f"q{END}2"), assistant("a2"))
    assert "messages[2].content holds a control token" in refused(tmp_path, *control)
    tool = (user("q"), assistant("a"), turn("tool", "1"), assistant("b"))
    assert "messages[1] is answered by a tool" in refused(tmp_path, *tool)
    assert "calls that end in </code>" in refused(tmp_path, *tool, renderer="retool")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([user("q")], "messages[0] of the user"),
        ([assistant("a")], "messages[0] is a turn of the assistant at the beginning"),
        ([user("q"), assistant("a"), user("r")], "ends in messages[2] of the user"),
        ([user("q"), user("r"), assistant("a")], "messages[1] is a turn of the user behind"),
        ([user("q"), assistant("a"), assistant("b")], "messages[2] is a turn of the assistant"),
        ([user("q"), turn("system", "s"), assistant("a")], "messages[1] is a turn of the system"),
        ([user("q"), turn("tool", "s"), assistant("a")], "messages[1] is a turn of the tool"),
        ([turn("developer", "s"), user("q"), assistant("a")], "messages[0].role is 'developer'"),
        ([turn("human", "q"), turn("gpt", "a")], "messages[0].role is 'human'"),
        ([turn(None, "q"), assistant("a")], "messages[0].role is None"),
        ([turn(["user"], "q"), assistant("a")], "messages[0].role is ['user']"),
        ([user("q"), assistant(None)], "messages[1].content is 'None'"),
        ([user("q"), assistant("")], "messages[1].content is ''"),
        ([user(" \n"), assistant("a")], "messages[0].content is"),
        ([user([{"type": "text", "text": "q"}]), assistant("a")], "messages[0].content is"),
        ([user("q"), assistant("\ud800")], "messages[1].content' holds half of a surrogate"),
        ([user("q"), {"role": "assistant"}], "messages[1].content is 'None'"),
        ([user("q"), {"content": "a"}], "messages[1].role is None"),
        ([user("q"), "a"], "messages[1] is 'a'"),
        (
            [user("q"), turn("assistant", "a", tool_calls=[{"id": "1"}])],
            "messages[1].tool_calls[0] has None for a name",
        ),
        (
            [user("q"), turn("assistant", "a", reasoning_content="hm")],
            "'reasoning_content', which would be lost",
        ),
        ([turn("user", "q", name="bob"), assistant("a")], "messages[0] has key 'name'"),
        ([], "has '[]' for key 'messages'"),
        (None, "has 'None' for key 'messages'"),
        ("text", "has 'text' for key 'messages'"),
    ],
)
def test_a_row_that_is_no_conversation_says_file_line_and_key(tmp_path, messages, message):
    path = tmp_path / "a.jsonl"
    path.write_text("\n" + json.dumps({"messages": messages}))
    with pytest.raises(ValueError, match=r"a\.jsonl:2: ") as caught:
        DemonstrationFile(path=str(path)).take(
            1, seed=0, index=0, renderer=load_renderer("retool"), tokenizer=ChatOfLetters()
        )
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"messages": NaN}', '{"prompt": "q"}', '{"messages": {}}']
)
def test_a_broken_line_says_file_and_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": [user("q\u2028r\u0085s"), assistant("a")]}, ensure_ascii=False)
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: "):
        taken_from(path)


def taken_from(path):
    return DemonstrationFile(path=str(path)).take(
        1, seed=0, index=0, renderer=load_renderer("two_shot_text"), tokenizer=ChatOfLetters()
    )


def test_line_separators_of_unicode_are_text(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"messages": [user("q\u2028r\u0085s"), assistant("a")]}
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    (one,) = taken_from(path)
    assert one.problem.question == "q\u2028r\u0085s"


def test_an_answer_tag_in_a_program_or_an_observation_ends_nothing(tmp_path):
    response = (
        "<code>\nprint('<answer>1</answer>')\n</code>\n<interpreter>\n<answer>1</answer>\n"
        "</interpreter>\n\n<answer>2</answer>"
    )
    one = taken(tmp_path, user("q"), assistant(response + " and more"), renderer="retool")
    assert one.response_text == response
    assert pieces(one)[-1] == ("POLICY", "<answer>2</answer>")


def test_a_response_without_an_answer_tag_ends_in_the_end_token(tmp_path):
    one = taken(tmp_path, user("q"), assistant("I do not know"), renderer="retool")
    assert pieces(one)[-1] == ("POLICY", f"I do not know{END}")


def test_rows_longer_than_a_packed_row_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"messages": [user("q"), assistant("a" * size)]} for size in (3, 400, 5, 500)]
    path.write_text("\n".join(map(json.dumps, rows)))
    source, renderer = DemonstrationFile(path=str(path)), load_renderer("two_shot_text")
    lengths = {
        len(one.ids)
        for one in source.take(4, seed=0, index=0, renderer=renderer, tokenizer=ChatWithEnds())
    }
    limit = sorted(lengths)[1]
    source.check_rows(max(lengths), renderer=renderer, tokenizer=ChatWithEnds())
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*row_tokens={limit}, .*2 of 4") as caught:
        source.check_rows(limit, renderer=renderer, tokenizer=ChatWithEnds())
    assert f"raise it to {max(lengths)}" in str(caught.value)


@pytest.mark.parametrize("tools", [None, "[]", [{"name": "weather", "description": "Says it."}]])
def test_a_table_may_have_tools_or_lack_the_column(tmp_path, tools):
    row = {"messages": [turn("user", "1+1?"), turn("assistant", "2")]}
    row |= {} if tools is None else {"tools": tools}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    [found] = read_conversations(tmp_path / "rows.parquet")
    assert (found.name, found.question) == ("rows/1", "1+1?")
    assert [tool.name for tool in found.tools] == (["weather"] if isinstance(tools, list) else [])
