"""Each format: calls with arguments, text around them, what is no call and why."""

import json

import pytest

from jaxtool.core.calls import Call, InvalidCall, ToolSpec
from jaxtool.formats.base import FORMATS
from jaxtool.formats.signatures import LONGEST_REASON, Signatures

WEATHER = ToolSpec(
    name="weather",
    description="Weather of a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "units": {"enum": ["C", "F"]},
        },
        "required": ["city"],
        "additionalProperties": False,
    },
)
PYTHON = ToolSpec(
    name="python",
    description="Runs a program.",
    parameters={
        "type": "object",
        "properties": {"code": {"type": "string"}},
        "required": ["code"],
    },
)
ADD = ToolSpec(
    name="add",
    description="Adds.",
    parameters={
        "type": "object",
        "properties": {
            "a": {"type": "number"},
            "b": {"type": ["number", "null"]},
            "more": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["a", "b"],
    },
)
TOOLS = Signatures([WEATHER, PYTHON, ADD])
OSLO = Call(tool="weather", arguments={"city": "Oslo"})


def read(name, text):
    return FORMATS[name].read_calls(text, TOOLS)


def reason(name, text):
    (call,) = read(name, text)
    assert isinstance(call, InvalidCall)
    return call.reason


def tagged(inner):
    return f"<tool_call>\n{inner}\n</tool_call>"


def hermes(name="weather", **arguments):
    return tagged(json.dumps({"name": name, "arguments": arguments}))


ROUND_TRIPS = [
    OSLO,
    Call(tool="weather", arguments={"city": 'São Paulo\n"x" </tool_call> <think>', "days": 3}),
    Call(tool="python", arguments={"code": "def f():\n    return '</parameter>'\nprint(f())"}),
    Call(tool="add", arguments={"a": 1.5, "b": None, "more": [1, 2]}),
]


@pytest.mark.parametrize("call", ROUND_TRIPS, ids=lambda call: call.tool)
@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_is_read(name, call):
    text = FORMATS[name].write_call(call)
    before = "" if name == "llama3_1" else "Let me see.\n"
    assert read(name, before + text.removesuffix("Observation:")) == (call,)


@pytest.mark.parametrize(
    "text",
    [
        "No call at all.",
        "<think>I could write <tool_call>{} but</think> 42",
        "<think>" + hermes(city="Oslo"),  # thoughts without end
        hermes(city="Oslo") + "</think> 42",  # thoughts that began in the prompt
        "</tool_call>",
    ],
)
@pytest.mark.parametrize("name", ["hermes", "toolrl", "qwen3_coder"])
def test_text_and_thoughts_are_no_calls(name, text):
    assert read(name, text) == ()


def test_hermes_takes_several_calls_and_text_around_them():
    text = f"First.\n{hermes(city='Oslo')}\nThen\n{hermes(city='Rome', days=2)} done"
    rome = Call(tool="weather", arguments={"city": "Rome", "days": 2})
    assert read("hermes", text) == (OSLO, rome)
    assert read("hermes", f"<think>{hermes(city='No')}</think>{hermes(city='Oslo')}") == (OSLO,)
    assert read("hermes", f"{hermes(city='No')}</think>{hermes(city='Oslo')}") == (OSLO,)
    assert read("hermes", f"{hermes(city='Oslo')} </think>" + "x </think>") == ()


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ('{"name": "weather", "arguments": {"city": "Oslo"}', "no JSON: Expecting ',' delimiter"),
        ("{'name': 'weather'}", "no JSON: Expecting property name enclosed in double quotes at c"),
        ('{"name": "python", "arguments": {"code": "a\nb"}}', "a line end or tab inside a string"),
        ("", "no JSON: Expecting value at character 1"),
        ("[1]", 'a call is an object with "name" and "arguments"'),
        ('{"name": "weather"}', 'a call is an object with "name" and "arguments"'),
        ('{"name": 3, "arguments": {}}', "names no tool: there are weather, python, add"),
        ('{"name": "wether", "arguments": {}}', "no tool 'wether': there are weather, python, add"),
        ('{"name": "weather", "arguments": "{}"}', "the arguments of weather must be an object"),
        ('{"name": "weather", "arguments": {}}', "weather needs the argument 'city'"),
        (
            '{"name": "weather", "arguments": {"city": 3}}',
            "'city' of weather must be of type string",
        ),
        (
            '{"name": "weather", "arguments": {"city": "O", "x": 1}}',
            "weather takes no argument 'x'",
        ),
        ('{"name": "weather", "arguments": {"city": "O", "units": "K"}}', "'K' is not one of ['C'"),
        (
            '{"name": "weather", "arguments": {"city": "O", "days": true}}',
            "be of type integer, got T",
        ),
        (
            '{"name": "add", "arguments": {"a": 1, "b": 2, "more": [1, "x"]}}',
            "'more[1]' of add must",
        ),
        ('{"name": "add", "arguments": {"a": NaN, "b": 2}}', "NaN is no number of JSON"),
        ('{"name": "add", "arguments": {"a": 1e999, "b": 2}}', "a number is too large"),
        (
            '{"name": "add", "arguments": {"a": ' + "9" * 5000 + ', "b": 2}}',
            "a number is too large",
        ),
        ('{"name": "add", "arguments": {"a": 1, "a": 2, "b": 1}}', "it has 'a' twice"),
        ('{"name": "weather", "arguments": {"city": "\\ud800"}}', "half of a surrogate pair"),
        ('{"name": "weather", "arguments": {"city": ' + "[" * 200_000, "nested too deeply"),
        (
            '{"name": "weather", "arguments": {"city": "O"}} {"name": 1}',
            "and </tool_call> stands '{",
        ),
    ],
    ids=range(22),
)
def test_why_a_call_of_hermes_is_none(inner, said):
    got = reason("hermes", tagged(inner))
    assert said in got
    assert len(got) <= LONGEST_REASON
    assert "\n" not in got


@pytest.mark.parametrize(
    "cut",
    ["<tool_call>", '<tool_call>{"name": "wea', hermes(city="Oslo").removesuffix("</tool_call>")],
)
def test_a_call_that_is_cut_off(cut):
    assert reason("hermes", cut) == "the call is cut off: it has no </tool_call>"


def test_a_bad_call_does_not_hide_the_next_one():
    first, second = read("hermes", tagged("{") + hermes(city="Oslo"))
    assert isinstance(first, InvalidCall)
    assert second == OSLO


def coder(*parameters, name="weather"):
    inner = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters)
    return tagged(f"<function={name}>\n{inner}</function>")


def test_qwen3_coder_reads_texts_by_the_schema():
    assert read("qwen3_coder", coder(("city", "3"))) == (
        Call(tool="weather", arguments={"city": "3"}),
    )
    assert read("qwen3_coder", coder(("city", "Oslo"), ("days", " 3 "))) == (
        Call(tool="weather", arguments={"city": "Oslo", "days": 3}),
    )
    assert read("qwen3_coder", coder(("a", "1"), ("b", "null"), name="add")) == (
        Call(tool="add", arguments={"a": 1, "b": None}),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (coder(("days", "3")), "weather needs the argument 'city'"),
        (coder(("city", "O"), ("days", "three")), "must be of type integer, got 'three'"),
        (coder(("city", "O"), ("city", "P")), "has the parameter 'city' twice"),
        (coder(name="wether"), "there is no tool 'wether'"),
        (tagged('{"name": "weather"}'), "<function=NAME> must follow <tool_call>"),
        (tagged("<function=weather>\n<parameter=city>\nOslo"), "</parameter> is not where"),
        (
            "<tool_call>\n<function=weather>\n<parameter=city>\nOslo",
            "cut off: it has no </parameter>",
        ),
        ("<tool_call>\n<function=weather>\n", "cut off: it has no </function>"),
        ("<tool_call>", "cut off: it has no </tool_call>"),
    ],
)
def test_why_a_call_of_qwen3_coder_is_none(text, said):
    assert said in reason("qwen3_coder", text)


def llama(**parameters):
    return json.dumps({"name": "weather", "parameters": parameters})


def test_llama_reads_code_builtins_and_objects():
    code = Call(tool="python", arguments={"code": "print(1)"})
    assert read("llama3_1", "<|python_tag|>print(1)\n") == (code,)
    assert read("llama3_1", '<|python_tag|>weather.call(city="Oslo")') == (OSLO,)
    assert read("llama3_1", "<|python_tag|>" + llama(city="Oslo")) == (OSLO,)
    assert read("llama3_1", f" {llama(city='Oslo')};{llama(city='Oslo')}") == (OSLO, OSLO)


@pytest.mark.parametrize("text", ["It is 42.", "{1, 2}", '{"x": 1}', f"Here: {llama(city='Oslo')}"])
def test_answers_of_llama(text):
    assert read("llama3_1", text) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (llama(city="Oslo")[:-2], "the call is no JSON"),
        (llama(city="Oslo") + " as asked", "behind the call stands 'as asked'"),
        ('{"name": "weather"}', 'an object with "name" and "parameters"'),
        (llama(), "weather needs the argument 'city'"),
        ("<|python_tag|>", "no code to run"),
        ("<|python_tag|>weather.call(open('x'))", 'write weather.call(argument="value")'),
        ("<|python_tag|>weather.call(city=f())", 'write weather.call(argument="value")'),
    ],
)
def test_why_a_call_of_llama_is_none(text, said):
    assert said in reason("llama3_1", text)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ('{"city": "Oslo"}', {"city": "Oslo"}),
        ("Oslo", {"city": "Oslo"}),
        ('"Oslo"', {"city": "Oslo"}),
        ("42", {"city": "42"}),
        ("12 Rue\nOslo", {"city": "12 Rue\nOslo"}),
        ('{"city": "Oslo",\n "days": 2}', {"city": "Oslo", "days": 2}),
    ],
)
def test_inputs_of_react(given, arguments):
    text = f"Thought: hm\nAction: weather\nAction Input: {given}\n"
    assert read("react", text) == (Call(tool="weather", arguments=arguments),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Thought: hm\n", "no line 'Action:' stands before the observation"),
        ("Action: weather\n", "no line 'Action Input:' stands behind the action"),
        ("Action: wether\nAction Input: Oslo\n", "there is no tool 'wether'"),
        ('Action: weather\nAction Input: {"city": \n', "the input is no JSON"),
        ("Action: add\nAction Input: 1 and 2\n", "the input of add must be a JSON object"),
        ("Action: add\nAction Input: one\n", "the input is no JSON"),
    ],
)
def test_why_an_action_is_none(text, said):
    assert said in reason("react", text)


def test_nothing_counts_behind_a_final_answer_and_the_last_action_counts():
    first = "Action: weather\nAction Input: Rome\n"
    assert read("react", first + "Final Answer: 42\n") == ()
    assert read("react", first + "Action: weather\nAction Input: Oslo\n") == (OSLO,)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"type": "objekt"}, "is no JSON schema: 'objekt' is not valid"),
        ({"type": "string"}, "has type='string': its arguments are an object"),
        ({}, "has type=None"),
        (
            {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1/x"}}},
            "outside of itself",
        ),
        ({"type": "object", "default": object()}, "is no JSON: Object of type object"),
    ],
)
def test_a_schema_that_is_none_is_refused(spec, said):
    with pytest.raises(ValueError, match=r"of tool 't' \S+") as error:
        Signatures([ToolSpec(name="t", description="", parameters=spec)])
    assert said in str(error.value)


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tools are called 'weather'"):
        Signatures([WEATHER, PYTHON, WEATHER])
