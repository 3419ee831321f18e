"""OpenAI's chat completions as bytes: one request, one reply, what it reports of tokens. Pure.

Covered: `POST {base}/chat/completions` without streaming, as OpenAI, vLLM, SGLang, llama.cpp and others serve
it. Not covered: streams, tools of the endpoint, several choices.
"""

import dataclasses
import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from jaxtool.cold_start.spending import Tokens

_SHOWN_CHARS = 200
_MOST_TOKENS = 1 << 31  # that a usage may report


class UnreadableReply(Exception):
    """A reply that is none: no JSON, or not of the protocol."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model wrote."""

    text: str
    finish_reason: str  # "stop"; "length": it was cut off; "content_filter", or another word
    used: Tokens | None  # None: the reply reports none that can be true


def request_body(
    *,
    model: str,
    prompt: str,
    max_tokens: int,
    limit_name: str,
    sampling: Mapping[str, float | int],
) -> bytes:
    """A request of one user turn."""
    message = {"role": "user", "content": prompt}
    body = {"model": model, "messages": [message], limit_name: max_tokens, "stream": False}
    return json.dumps(body | dict(sampling)).encode()


def read_reply(content: bytes) -> Reply:
    """The first choice of a reply.

    Raises:
      UnreadableReply: it is not of the protocol; one line says what is wrong.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnreadableReply(f"no JSON ({one_line(str(error))})") from None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnreadableReply(f"no choices in {one_line(str(body))}")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise UnreadableReply(f"no message in {one_line(str(choices[0]))}")
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise UnreadableReply(f"content is {one_line(str(text))}, not a text")
    reason = choices[0].get("finish_reason")
    used = _used(body.get("usage"))
    if text and used is not None and not used.written:
        used = None  # text costs tokens
    return Reply(
        text=text or "",
        finish_reason=one_line(reason) if isinstance(reason, str) else "",
        used=used,
    )


def _used(usage: Any) -> Tokens | None:
    if not isinstance(usage, dict):
        return None
    prompt, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or type(written) is not int:
        return None
    is_possible = 0 <= prompt < _MOST_TOKENS and 0 <= written < _MOST_TOKENS
    return Tokens(prompt=prompt, written=written) if is_possible else None


def error_text(content: bytes) -> str:
    """The message of an error, or the head of what came instead, in one line."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return one_line(content[: 4 * _SHOWN_CHARS].decode("utf-8", "replace"))
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return one_line(str(message))


def error_code(content: bytes) -> str:
    """`insufficient_quota` and the like; "" where none is given."""
    try:
        code = json.loads(content)["error"]["code"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    return code if isinstance(code, str) else ""


def retry_after_s(header: str, now_s: float) -> float:
    """Seconds to wait: the header holds them, or the date until which to wait; 0 if it holds neither."""
    header = header.strip()
    if header.replace(".", "", 1).isascii() and header.replace(".", "", 1).isdigit():
        return float(header[:12])
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError):
        return 0.0
    return max(0.0, until.timestamp() - now_s)


def one_line(text: str) -> str:
    """Printable and short: what a stranger sent must not write to the terminal as it likes."""
    text = "".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN_CHARS])
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
