"""Rows with OpenAI's `tool_calls`: the ids are those of apply_chat_template, or the row is refused by line and key."""

import dataclasses
import json

import pytest
from helpers.chat_of_letters import ChatOfLetters
from helpers.tiny_tokenizers import real_tokenizer_or_skip
from helpers.tool_menus import ADD, WEATHER, chat_tokenizer

from jaxtool.core.calls import ToolSpec
from jaxtool.core.types import Origin
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.tokenizer import decode
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.prompt_tools import as_functions
from jaxtool.renderers.renderer import load_renderer

# Templates of our own that write turns as those of Qwen, Qwen3-Coder and Llama 3.1 do.
_HEAD = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
_TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_RESULT = (
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response>"
)
TEMPLATES = {
    "hermes": _HEAD
    + _RESULT
    + "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "{% if m.content %}{{ '\\n' }}{% endif %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}{% endif %}" + _TAIL,
    "qwen3_coder": _HEAD
    + _RESULT
    + "{% elif m.tool_calls %}<|im_start|>assistant\n{% if m.content %}{{ m.content }}\n\n{% endif %}"
    "{% for c in m.tool_calls %}<tool_call>\n<function={{ c.function.name }}>\n"
    "{% for name, value in c.function.arguments | items %}<parameter={{ name }}>\n{{ value }}\n"
    "</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endif %}" + _TAIL,
    "llama3_1": _HEAD + "<|im_start|>{{ m.role }}\n\n{% if m.role == 'ipython' %}{{ m.content | tojson }}"
    "{% elif m.tool_calls %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "{% else %}{{ m.content | trim }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}",
}  # fmt: skip
OSLO = {"city": "Osló", "days": 3}


def called(name, arguments, text="", **more):
    """An assistant's message; arguments may be an object or its text, as in files of both kinds."""
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": text,
        "tool_calls": [{"type": "function", "function": function} | more],
    }


def user(text="How cold is Oslo?"):
    return {"role": "user", "content": text}


def told(text, **more):
    return {"role": "tool", "content": text} | more


def answer(text="4."):
    return {"role": "assistant", "content": text}


def taken(path, row, renderer, tokenizer):
    file = path / "d.jsonl"
    file.write_text("\n" + json.dumps(row) + "\n")
    source = DemonstrationFile(path=str(file))
    source.check_rows(10_000, renderer=renderer, tokenizer=tokenizer)
    (one,) = source.take(1, seed=0, index=0, renderer=renderer, tokenizer=tokenizer)
    one.check()
    return one


@pytest.fixture(scope="module", params=[*TEMPLATES, "qwen3"])
def chat(request, tmp_path_factory):
    """(renderer with tools, tokenizer)"""
    if request.param == "qwen3":
        return load_renderer("hermes").with_tools([WEATHER, ADD]), tokenizer_from_dir(
            real_tokenizer_or_skip("qwen3")
        )
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = chat_tokenizer(folder, TEMPLATES[request.param])
    return load_renderer(request.param).with_tools([WEATHER, ADD]), tokenizer


@pytest.mark.parametrize("are_texts", [False, True])
def test_a_row_of_structured_calls_has_the_templates_ids(chat, tmp_path, are_texts):
    """Two calls with their results; arguments as objects, and as the text that OpenAI sends."""
    renderer, tokenizer = chat
    thought = "" if renderer.name == "llama3_1" else "I look it up."
    calls = [("weather", OSLO, thought), ("add", {"a": 1, "b": 3}, "")]
    given = [
        called(name, json.dumps(arguments) if are_texts else arguments, text, id=name)
        for name, arguments, text in calls
    ]
    results = [told("1 °C", tool_call_id="weather", name="weather"), told("4")]
    row = {"messages": [user(), given[0], results[0], given[1], results[1], answer()]}
    one = taken(tmp_path, row, renderer, tokenizer)

    question = {"role": "user", "content": renderer.chat("How cold is Oslo?")[-1]["content"]}
    whole = [question]
    for (name, arguments, text), result in zip(calls, results, strict=True):
        got = {"role": renderer.tool.role, "content": result["content"]}
        whole += [called(name, arguments, text), got]
    end = tokenizer.eos_ids[0]
    ids = tokenizer.fast.apply_chat_template(
        whole,
        tools=as_functions(renderer.tools),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
    )
    assert one.ids.tolist() == [*ids, *tokenizer.encode("4."), end]
    learned = decode(tokenizer, one.ids[one.origins == Origin.POLICY])
    assert "Osló" in learned
    assert "°C" not in learned
    assert [int(i) for i in one.ids[one.origins == Origin.POLICY]].count(end) == 3


def text_and_structure(tmp_path, name, text, call, result="3", tools=()):
    """Ledgers of a row with a call as text, and of one with the same call as structure."""
    renderer = load_renderer(name)
    renderer = renderer.with_tools(tools) if tools else renderer
    tokenizer = ChatOfLetters()
    rows = [
        {"messages": [user(), answer(text), told(result), answer("It is \\boxed{3}")]},
        {"messages": [user(), call, told(result), answer("It is \\boxed{3}")]},
    ]
    return [taken(tmp_path, row, renderer, tokenizer) for row in rows]


CODE = {"code": "print(1+2)"}
SEARCH = ToolSpec(
    name="search",
    description="Finds.",
    parameters={
        "type": "object",
        "properties": {"query": {"type": "string"}},
        "required": ["query"],
    },
)


@pytest.mark.parametrize(
    ("name", "text", "call", "tools"),
    [
        ("retool", "So\n<code>\n```python\nprint(1+2)\n```\n</code>", called("python", CODE, "So"), ()),
        ("torl", "```python\nprint(1+2)\n```\n```output", called("python", CODE), ()),
        ("search_r1", "<search>who wrote Emma</search>", called("search", {"query": "who wrote Emma"}), [SEARCH]),
        (
            "react",
            'hm\nAction: weather\nAction Input: {"city": "Oslo"}\nObservation:',
            called("weather", {"city": "Oslo"}, "hm"),
            [WEATHER],
        ),
    ],
)  # fmt: skip
def test_in_tags_and_lines_a_call_is_the_text_that_a_policy_writes(
    tmp_path, name, text, call, tools
):
    as_text, as_structure = text_and_structure(tmp_path, name, text, call, tools=tools)
    assert as_structure.ids.tolist() == as_text.ids.tolist()
    assert as_structure.origins.tolist() == as_text.origins.tolist()
    assert (as_structure.origins == Origin.TOOL).any()


def test_the_tools_of_a_row_stand_in_its_prompt(tmp_path):
    tokenizer = chat_tokenizer(tmp_path / "t", TEMPLATES["hermes"])
    row = {"messages": [user(), called("weather", {"city": "Oslo"}), told("4"), answer()]}
    tools = as_functions([WEATHER])
    for given in (tools, json.dumps(tools), [tools[0]["function"]]):
        one = taken(tmp_path, row | {"tools": given}, load_renderer("hermes"), tokenizer)
        prompt = decode(tokenizer, one.ids[one.origins == Origin.PROMPT])
        assert "Weather of a city, today." in prompt
    plain = taken(tmp_path, row, load_renderer("hermes"), tokenizer)
    assert "Weather" not in decode(tokenizer, plain.ids[plain.origins == Origin.PROMPT])
    assert plain.ids[plain.origins != Origin.PROMPT].tolist() == (
        one.ids[one.origins != Origin.PROMPT].tolist()
    )


GOOD = called("weather", {"city": "Oslo"})


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([GOOD | {"tool_calls": GOOD["tool_calls"] * 2}, told("4")], "tool_calls holds 2 calls; a list of one"),
        ([GOOD | {"tool_calls": {"name": "x"}}, told("4")], "tool_calls holds {'name': 'x'}; a list of one"),
        ([called("", {}), told("4")], "tool_calls[0] has '' for a name"),
        ([called("weather", "{city: 1}"), told("4")], "tool_calls[0]: arguments is no JSON: "),
        ([called("weather", '{"city": "O"} x'), told("4")], "arguments is no JSON: behind it stands"),
        ([called("weather", [1]), told("4")], "tool_calls[0]: arguments is [1]; an object is needed"),
        ([called("wether", {"city": "O"}), told("4")], "tool_calls[0]: there is no tool 'wether': there are weather"),
        ([called("weather", {}), told("4")], "tool_calls[0]: weather needs the argument 'city'"),
        ([called("weather", {"city": "O", "days": "3"}), told("4")], "the argument 'days' of weather must be of type integer"),
        ([GOOD, user("And Rome?")], "calls 'weather', and messages[2] is a turn of the user: the result is"),
        ([called("weather", {"city": "O"}, id="a"), told("4", tool_call_id="b")], "tool_call_id is 'b', and the"),
        ([GOOD, told("4", name="add")], "messages[2].name is 'add', and the call before it is of 'weather'"),
        ([called("weather", {"city": "</tool_call>"}, "<tool_call> is the tag"), told("4")], "would read another call"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_kept_is_refused_by_line_and_key(tmp_path, messages, said):
    tokenizer = chat_tokenizer(tmp_path / "t", TEMPLATES["hermes"])
    renderer = load_renderer("hermes").with_tools([WEATHER])
    with pytest.raises(ValueError, match=r"d\.jsonl:2: messages\[\d\]") as caught:
        taken(tmp_path, {"messages": [user(), *messages, answer()]}, renderer, tokenizer)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "call", "said"),
    [
        ("llama3_1", called("weather", {"city": "O"}, "So"), "cannot write it: a turn is a text or a call, not both"),
        ("two_shot_text", called("python", CODE), "has no tool: use one that calls tools"),
        ("retool", called("weather", {"city": "O"}), "cannot write it: it calls python, and not 'weather'"),
        ("retool", called("python", {"code": "1", "n": 2}), "its tags hold 'code' alone, and python is given code, n"),
        ("retool", called("python", {"code": 7}), "its tags hold a text, and code is 7"),
        ("retool", called("python", {"code": "1 </code> 2"}), "would read another call"),
        ("search_r1", called("search", {"query": "a</search>b"}), "would read another call"),
    ],
)  # fmt: skip
def test_a_call_that_the_renderer_cannot_write_is_refused(tmp_path, name, call, said):
    tokenizer = chat_tokenizer(tmp_path / "t", TEMPLATES["llama3_1"])
    with pytest.raises(ValueError, match=r"d\.jsonl:2: messages\[1\]\.tool_calls\[0\]: ") as caught:
        taken(
            tmp_path,
            {"messages": [user(), call, told("4"), answer()]},
            load_renderer(name),
            tokenizer,
        )
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_may_end_in_a_call_where_the_end_token_ends_a_call(tmp_path):
    """In tags it would teach to stop behind a call that a rollout answers."""
    tokenizer = chat_tokenizer(tmp_path / "t", TEMPLATES["hermes"])
    row = {"messages": [user(), GOOD]}
    one = taken(tmp_path, row, load_renderer("hermes"), tokenizer)
    assert decode(tokenizer, one.ids).rstrip().endswith("</tool_call>")
    assert one.ids[-1] in tokenizer.eos_ids
    with pytest.raises(ValueError, match=r"d\.jsonl:2: messages\[1\] ends the row in a call"):
        taken(
            tmp_path,
            {"messages": [user(), called("python", CODE)]},
            load_renderer("retool"),
            tokenizer,
        )


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ("[", "tools is no JSON"),
        ({"name": "x"}, "tools is {'name': 'x'}; a list of functions"),
        ([{"type": "function"}], "tools[0] needs a text as name"),
        ([{"name": "x", "parameters": []}, {"name": "x"}], "tools: two tools are called 'x'"),
        ([{"name": "x", "parameters": {"type": "array"}}], "tools: the schema of tool 'x' has type='array'"),
    ],
)  # fmt: skip
def test_tools_of_a_row_that_are_none_are_refused(tmp_path, tools, said):
    row = {"messages": [user(), answer()], "tools": tools}
    with pytest.raises(ValueError, match=r"d\.jsonl:2: ") as caught:
        taken(tmp_path, row, load_renderer("retool"), ChatOfLetters())
    assert said in str(caught.value)


def test_the_text_of_a_call_keeps_a_types_meaning_where_tools_are_known(tmp_path):
    """Without a schema the coder's form says nothing of a type, and nothing is checked."""
    tokenizer = chat_tokenizer(tmp_path / "t", TEMPLATES["qwen3_coder"])
    coder = load_renderer("qwen3_coder")
    text = dataclasses.replace(
        WEATHER,
        parameters={"type": "object", "properties": {"city": {"type": "string"}, "days": {}}},
    )
    row = {"messages": [user(), called("weather", {"city": "O", "days": 3}), told("4"), answer()]}
    taken(tmp_path, row, coder, tokenizer)
    taken(tmp_path, row, coder.with_tools([WEATHER]), tokenizer)
    with pytest.raises(ValueError, match="a type is not the schema's"):
        taken(tmp_path, row, coder.with_tools([text]), tokenizer)
