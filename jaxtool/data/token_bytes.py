"""Bytes of single tokens, read off a `tokenizers` definition: byte-level BPE and SentencePiece style.

Text is then a plain join of bytes, exact for characters that are split over tokens. Not covered:
WordPiece and other decoders that look at neighbouring tokens; they are refused by name.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
METASPACE = "▁"

# Tags of tool-use renderers: text even where a tokenizer declares them special.
_TAGS = [
    "code",
    "interpreter",
    "answer",
    "think",
    "search",
    "result",
    "information",
    "tool_call",
    "tool_response",
]
TEXT_TOKENS = (
    *(f"<{slash}{tag}>" for tag in _TAGS for slash in ("", "/")),
    "<|python_tag|>",  # Llama 3.1 opens a call with it
)


@functools.cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's map: printable bytes stand for themselves, the others for characters from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def byte_level_bytes(piece: str) -> bytes:
    """Bytes of a piece of a byte-level BPE, each character standing for one byte.

    A piece with a character that stands for none, as an added token may have, is its own text. So
    `Ġif` is " if" and `a▁b` itself, as the `tokenizers` package decodes them, added or not.
    """
    table = byte_of_character()
    if not all(character in table for character in piece):
        return piece.encode()
    return bytes(table[character] for character in piece)


def metaspace_bytes(piece: str) -> bytes:
    """Bytes of a piece where ▁ is a space and `<0xE2>` a byte."""
    byte = BYTE_PIECE.fullmatch(piece)
    if byte:
        return bytes([int(byte[1], 16)])
    return spaced_bytes(piece)


def spaced_bytes(piece: str) -> bytes:
    """Bytes of a piece where ▁ is a space; `<0xE2>` is text."""
    return piece.replace(METASPACE, " ").encode()


def piece_decoder(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """The function above that fits the `decoder` entry of a tokenizer.json, added tokens included.

    Raises:
      ValueError: a decoder whose tokens have no bytes of their own.
    """
    steps: Sequence[dict[str, Any]] = [decoder] if decoder else []
    if decoder and decoder["type"] == "Sequence":
        steps = decoder["decoders"]
    kinds = {step["type"] for step in steps}
    if kinds == {"ByteLevel"}:
        return byte_level_bytes
    is_metaspace = all(_is_metaspace_step(step) for step in steps)
    if kinds & {"Metaspace", "Replace"} and is_metaspace:
        return metaspace_bytes if "ByteFallback" in kinds else spaced_bytes
    raise ValueError(
        f"tokenizer decoder {sorted(kinds) or None} is not supported: use a byte-level BPE "
        "or a SentencePiece-style tokenizer"
    )


def _is_metaspace_step(step: dict[str, Any]) -> bool:
    """Strip drops the dummy space at the start of a text, which `without_prefix` never adds."""
    match step:
        case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
            return True
        case {"type": "Metaspace", "replacement": "▁"}:
            return True
        case {"type": "Strip", "content": " ", "stop": 0}:
            return True
        case {"type": "ByteFallback" | "Fuse"}:
            return True
    return False


def without_prefix(part: Any) -> Any:
    """A normalizer or pre_tokenizer entry of a tokenizer.json that adds no space before a text.

    The dummy space is no part of the text, so ids made with it would not decode to it.
    """
    if not isinstance(part, dict):
        return part
    if part["type"] == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        steps = [without_prefix(step) for step in part[key]]
        return part | {key: [step for step in steps if step is not None]}
    if part["type"] == "Prepend":
        return None
    if part["type"] == "Metaspace":
        return part | {"prepend_scheme": "never"}
    if part["type"] == "ByteLevel":
        return part | {"add_prefix_space": False}
    return part
