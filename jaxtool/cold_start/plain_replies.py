"""What a written text must not hold, whatever its form: control tokens, control characters, endless length.

A demonstration's text is encoded with its control tokens, so a rewriter that spells one would end a turn
in the middle of the response. Without a tokenizer whatever looks like one is refused.
"""

import re
from collections.abc import Iterable

from jaxtool.cold_start.traces import Fault

# <|im_end|>, DeepSeek's <｜end▁of▁sentence｜>, and those without bars.
_LOOKS_LIKE_ONE = re.compile(
    r"<[|｜][^<>\n]{1,60}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|</?(?:start|end)_of_turn>"
    r"|\[/?INST\]|<</?SYS>>"
)
_CONTROL_CHARACTER = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]"
)
_THOUGHT = re.compile(r"\s*<think>.*?</think>\s*", re.DOTALL)


def without_thought(text: str) -> str:
    """The text behind a leading <think> block: a rewriter's own thoughts are no part of what it writes."""
    found = _THOUGHT.match(text)
    return text if found is None else text[found.end() :]


def check_plain(text: str, *, max_chars: int, control: Iterable[str] = ()) -> None:
    """Raises Fault on a text that no policy should learn.

    Args:
      control: spellings of the tokenizer's control tokens.
    """
    if len(text) > max_chars:
        raise Fault("too_long", f"{len(text)} characters, more than {max_chars}")
    if not text.strip():
        raise Fault("empty", "there is no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Fault("no_text", f"half of a surrogate pair at character {error.start}") from None
    if (found := _CONTROL_CHARACTER.search(text)) is not None:
        raise Fault("no_text", f"control character {found[0]!a} at character {found.start()}")
    spelled = next((token for token in control if token and token in text), None)
    if spelled is None and (looks := _LOOKS_LIKE_ONE.search(text)) is not None:
        spelled = looks[0]
    if spelled is not None:
        raise Fault("control_token", f"{spelled!r} would become a control token")
    if text.lstrip().startswith("<think>"):
        raise Fault("open_thought", "a <think> block that is never closed")
