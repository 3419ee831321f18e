"""experiments.render: a prompt with its tokens, calls, observations, answer, verdict; faults in one line."""

import json
import shlex
import sys

import pytest
from helpers.mcp_calls import bad
from helpers.tool_menus import HERMES_TEMPLATE, chat_tokenizer

from jaxtool.cli import render as command

CALL = '<tool_call>\n{"name": "convert", "arguments": {"value": 42.2}}\n</tool_call>'
RESPONSE = f"I need miles.\n{CALL}<|im_end|>\n{CALL.replace('value', 'valu')}<|im_end|>\nIt is \\boxed{{26.2}}\n"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    chat_tokenizer(path, HERMES_TEMPLATE)
    return str(path)


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run_command(response, *flags, renderer="hermes", tokenizer="arithmetic"):
        file, out = tmp_path / "response.txt", tmp_path / "out.json"
        argv = ["render", "--renderer", renderer, "--tokenizer", tokenizer, "--json", str(out)]
        if response is not None:
            file.write_text(response)
            argv += ["--response", str(file)]
        monkeypatch.setattr(sys, "argv", [*argv, *flags])
        command.main()
        return json.loads(out.read_text())

    return run_command


TOOLS = ("--tools", "helpers.render_tools:convert")


def test_calls_are_made_and_the_answer_is_judged(run, chat, capsys):
    record = run(RESPONSE, *TOOLS, "--run", "--answer", "26.2", tokenizer=chat)
    first, second = record["calls"]
    assert (first["tool"], first["arguments"]) == ("convert", {"value": 42.2})
    assert "<tool_response>\n26.2\n</tool_response><|im_end|>" in first["observation"]
    assert second["invalid"] == "convert needs the argument 'value'"
    assert "Invalid call: convert needs the argument 'value'" in second["observation"]
    assert (record["answer"], record["end"], record["left_over"]) == ("26.2", "end token", "")
    assert record["verdict"]["is_correct"] is True
    shown = capsys.readouterr().out
    assert "⟨|im_start|⟩user" in shown
    assert 'call 1 convert {"value": 42.2}' in shown
    assert "verdict right, 1" in shown


def test_tools_of_a_server_are_shown_and_called(run, chat, tmp_path):
    server = shlex.join(bad("fine", tmp_path / "log").endpoint.command)
    call = '<tool_call>\n{"name": "act", "arguments": {"how": "fine"}}\n</tool_call>'
    record = run(f"{call}<|im_end|>\n", "--mcp", server, "--run", tokenizer=chat)
    assert record["tools"] == ["act", "lies"]
    assert "<tool_response>\nfine\n</tool_response>" in record["calls"][0]["observation"]
    assert "Does it." in "".join(token["text"] for token in record["tokens"])


def test_tokens_say_who_wrote_them_and_which_are_control(run, chat):
    record = run(CALL, *TOOLS, "--result", "<|im_end|>", tokenizer=chat)
    origins = [token["origin"] for token in record["tokens"]]
    assert origins == sorted(origins, key=("prompt", "policy", "tool").index)
    said = [token for token in record["tokens"] if token["origin"] == "tool"]
    ends = [token for token in said if token["text"] == "<|im_end|>"]
    assert [token["is_control"] for token in ends] == [True]  # the template's, not the result's
    assert record["end"] == "open"


def test_without_a_response_the_prompt_alone_is_shown(run, chat, capsys):
    record = run(None, *TOOLS, "--tokens", tokenizer=chat)
    assert {token["origin"] for token in record["tokens"]} == {"prompt"}
    assert "'Converts'" not in capsys.readouterr().out  # one token a line
    assert record["tools"] == ["convert"]


def test_tags_need_no_chat_template(run, capsys):
    record = run(
        "<code>print(6*7)</code><answer>\\boxed{42}</answer>3", renderer="arithmetic_tools"
    )
    assert record["calls"][0]["arguments"] == {"code": "print(6*7)"}
    assert (record["end"], record["answer"], record["left_over"]) == ("answer", "42", "3")
    assert "not read" in capsys.readouterr().out


def test_a_token_over_the_end_of_a_call_is_cut(run, tmp_path_factory):
    """As in SmolLM2, where "><" is one token."""
    from helpers.tiny_tokenizers import write_byte_level

    path = write_byte_level(tmp_path_factory.mktemp("cut"))
    spec = json.loads((path / "tokenizer.json").read_text())
    tokens = spec["model"]["vocab"]
    tokens["><"] = tokens.pop("<code>")
    spec["model"]["merges"].insert(0, [">", "<"])
    spec["added_tokens"] = [
        t for t in spec["added_tokens"] if t["content"] not in ("<code>", "</code>")
    ]
    (path / "tokenizer.json").write_text(json.dumps(spec))
    record = run(
        "<code>1</code><answer>\\boxed{2}</answer>", renderer="retool", tokenizer=str(path)
    )
    said = "".join(t["text"] for t in record["tokens"] if t["origin"] == "policy")
    assert (said, record["end"]) == ("<code>1</code><answer>\\boxed{2}</answer>", "answer")


def test_tools_described_in_a_file(run, chat, tmp_path):
    spec = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    (tmp_path / "t.json").write_text(json.dumps([{"type": "function", "function": spec}]))
    record = run(None, "--spec", str(tmp_path / "t.json"), tokenizer=chat)
    assert record["tools"] == ["f"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--spec", "none.json"), "there is no file of tools none.json"),
        (("--spec", "none.json", "--run"), "--spec describes tools and cannot run them"),
        (
            (*TOOLS, "--answer", "", "--judge", "exact_match"),
            "--answer '': references that are empty",
        ),
        ((*TOOLS, "--judge", "x", "--answer", "1"), "there is no judge 'x'"),
        (("--tools", "helpers.render_tools:none"), "has no 'none'"),
    ],
)
def test_faults_in_one_line(run, chat, flags, said):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run("Hi", *flags, tokenizer=chat)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "t.json: no JSON"),
        ("[]", "t.json: a list of tools is needed"),
        ('[{"name": "f"}]', r"t.json: \[0\] is no tool: write"),
    ],
)
def test_a_file_of_tools_that_is_none(run, chat, tmp_path, text, said):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        run(None, "--spec", str(tmp_path / "t.json"), tokenizer=chat)
