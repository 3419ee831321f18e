"""What a chat template writes around a tool's result: the rest of the call's turn, the tool's, the next head.

The template is asked with placeholders, so that its own text is known apart from what a policy or a tool
wrote. Templates that write turns otherwise once others follow cannot be kept in one ledger; this is
looked for here, and refused. What a template does to *earlier* turns (Qwen3 takes thoughts out of them
after the next question) plays no part: a ledger only grows, and holds what the policy wrote.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from typing import Literal

Messages = Sequence[dict[str, str]]
Render = Callable[[Messages], str]

_SAID, _GOT = "\ue000said\ue001", "\ue000got\ue001"
_PROBE = ' \n"a"\\\n '  # how it comes out says what the template does to a result


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolTurn:
    """The template's text around a result."""

    before: str  # from the end of the call: "<|im_end|>\n<|im_start|>user\n<tool_response>\n"
    after: (
        str  # up to the policy's next word: "\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    result: Literal["plain", "stripped", "json"] = "plain"  # as the template writes it

    @property
    def tags(self) -> tuple[str, ...]:
        """Markup of the turn that a result must not hold, such as </tool_response>."""
        return tuple(dict.fromkeys(_TAG.findall(self.before + self.after)))

    def written(self, output: str) -> str:
        """`output` as the template would write it."""
        if self.result == "json":
            return json.dumps(output, ensure_ascii=False)[1:-1]
        return output.strip() if self.result == "stripped" else output


def tool_turn(render: Render, messages: Messages, role: str) -> ToolTurn:
    """What `render` writes around the result of a call that follows `messages`.

    Args:
      render: text of a conversation up to where the assistant's reply begins.
      role: of the tool's message.

    Raises:
      ValueError: the template cannot write such a turn, or not always in the same way.
    """
    said = {"role": "assistant", "content": _SAID}
    once = [*messages, said, {"role": role, "content": _GOT}]
    text = _rendered(render, once, role)
    if text.count(_SAID) != 1 or text.count(_GOT) != 1 or text.index(_SAID) > text.index(_GOT):
        raise ValueError(
            f"the chat template does not write a turn of role {role!r} behind the assistant's: set "
            "tool.role to one that it knows, or give tool.observation as text"
        )
    before, after = text.split(_SAID)[1].split(_GOT)
    again = _rendered(render, [*once, said, {"role": role, "content": _GOT}], role)
    if again.split(_SAID)[-1] != f"{before}{_GOT}{after}":
        raise ValueError(
            "the chat template writes the second result of a conversation otherwise than the first: one "
            "ledger cannot hold both; give tool.observation as text"
        )
    return ToolTurn(before=before, after=after, result=_kind(render, messages, role, before, after))


def _kind(
    render: Render, messages: Messages, role: str, before: str, after: str
) -> Literal["plain", "stripped", "json"]:
    said = {"role": "assistant", "content": _SAID}
    text = _rendered(render, [*messages, said, {"role": role, "content": _PROBE}], role)
    got = text.split(_SAID)[1]
    for kind in ("plain", "stripped", "json"):
        if got == before + ToolTurn(before="", after="", result=kind).written(_PROBE) + after:
            return kind
    raise ValueError(
        f"the chat template changes what a tool says (it wrote {got[:80]!r}): give tool.observation as text"
    )


def _rendered(render: Render, messages: Messages, role: str) -> str:
    try:
        return render(messages)
    except Exception as error:  # jinja and what templates raise have no class in common
        raise ValueError(
            f"the chat template cannot write a turn of role {role!r} ({error}): set tool.role to one that "
            "it knows, or give tool.observation as text"
        ) from error


def is_tag(text: str) -> bool:
    """Markup with a name: <tool_call>, </tool_response>, [TOOL_RESULTS]."""
    return _TAG.fullmatch(text) is not None


_TAG = re.compile(r"</?\w+>|\[/?\w+\]")
