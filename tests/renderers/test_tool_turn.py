"""What templates write around a result, against apply_chat_template itself; templates that cannot are refused."""

import functools

import pytest
from helpers.tiny_tokenizers import real_tokenizer_or_skip
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.sentencepiece_tokenizer import to_json
from jaxtool.renderers.tool_turn import ToolTurn, tool_turn

USER = {"role": "user", "content": "Weather in Oslo?"}
OUTPUT = ' Rain,\n"4 °C" \n'

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant{{ '\n' }}"
)
TRIMS = CHATML.replace("{{ m.content }}", "{{ m.content | trim }}")
# As Llama 3.1: the result of a tool as JSON, in a role of its own.
AS_JSON = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'ipython' %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}<|eot_id|>"
    "{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)


def renders(template):
    environment = ImmutableSandboxedEnvironment()
    environment.filters["tojson"] = to_json

    def fail(message):
        raise RuntimeError(message)

    return functools.partial(
        lambda compiled, messages: compiled.render(messages=messages, fail=fail),
        environment.from_string(template),
    )


@pytest.mark.parametrize(
    ("template", "role", "kind"),
    [(CHATML, "tool", "plain"), (TRIMS, "tool", "stripped"), (AS_JSON, "ipython", "json")],
)
def test_the_parts_and_the_result_join_to_what_the_template_writes(template, role, kind):
    render = renders(template)
    turn = tool_turn(render, [USER], role)
    assert turn.result == kind
    said = {"role": "assistant", "content": "CALL"}
    got = {"role": role, "content": OUTPUT}
    for history in ([USER], [USER, said, got], [USER, said, got, said, got]):
        whole = render([*history, said, got])
        written = turn.before + turn.written(OUTPUT) + turn.after
        assert whole.rpartition("CALL")[2] == written


def test_the_parts_of_chatml():
    assert tool_turn(renders(CHATML), [USER], "tool") == ToolTurn(
        before="<|im_end|>\n<|im_start|>tool\n",
        after="<|im_end|>\n<|im_start|>assistant\n",
        result="plain",
    )


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ fail('no tools') }}",
            r"\(no tools\)",
        ),
        (
            "{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}",
            "does not write a",
        ),
        (
            CHATML.replace("{{ m.content }}", "{{ m.content | replace('\\\\', '/') }}"),
            "changes what a",
        ),
        (
            CHATML.replace("{{ m.role }}", "{{ m.role }}{{ loop.index }}"),
            "the second result of a conv",
        ),
        (
            CHATML.replace("{{ m.content }}", "{{ m.content | upper }}"),
            "write a turn of role 'tool'",
        ),
    ],
)
def test_templates_that_cannot_are_refused_with_a_remedy(template, said):
    with pytest.raises(ValueError, match=said) as error:
        tool_turn(renders(template), [USER], "tool")
    assert "give tool.observation as text" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("thinks", [None, False, True])
def test_qwen3s_own_template(thinks):
    path = real_tokenizer_or_skip("qwen3")
    variables = () if thinks is None else (("enable_thinking", thinks),)
    tokenizer = tokenizer_from_dir(path, template_variables=variables)
    turn = tool_turn(tokenizer.render_chat, [USER], "tool")
    assert turn.before == "<|im_end|>\n<|im_start|>user\n<tool_response>\n"
    thought = "<think>\n\n</think>\n\n" if thinks is False else ""
    assert turn.after == f"\n</tool_response><|im_end|>\n<|im_start|>assistant\n{thought}"
    assert turn.result == "plain"
