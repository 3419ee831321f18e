"""What the rest of the code asks of a tokenizer, and a small exact one for vocabularies as data.

Text is rebuilt from the bytes of single tokens, so a tag is found whatever its tokenisation and a
multi-byte character split over tokens comes out whole. Nothing here tokenises model output.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """Ids in, bytes out."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ...

    @property
    def pad_id(self) -> int: ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What transformers puts before a text without a chat template: BOS, or nothing."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, special tokens written out in it recognised, none added."""
        ...

    @property
    def control_tokens(self) -> Mapping[int, str]:
        """Spelling of each token that structures a context: no text from outside may bring one in."""
        ...

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text` as ordinary characters: none of `control_tokens`, whatever is written in it."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes that the token adds to the text; empty for control tokens such as the end."""
        ...

    def render_chat(
        self, messages: Sequence[dict[str, str]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """Text of a conversation up to where the assistant's reply begins.

        Args:
          tools: as OpenAI's API takes them, {"type": "function", "function": {...}}, for templates that
            describe them.
        """
        ...


def written_bytes(tokenizer: Tokenizer, token_id: int) -> bytes:
    """Bytes of a token that a policy sampled.

    Empty for ids beyond the tokenizer: vocabularies of policies are padded (Qwen2.5: 151 665 tokens,
    152 064 rows), and nothing forbids a policy to sample the padding.
    """
    return tokenizer.token_bytes(token_id) if token_id < tokenizer.vocab_size else b""


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of `ids`; bytes that are no UTF-8 become U+FFFD."""
    raw = b"".join(written_bytes(tokenizer, int(i)) for i in ids)
    return raw.decode("utf-8", errors="replace")


def with_start(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids of a prompt that no chat template wrote, behind `start_ids` unless it has them."""
    start = list(tokenizer.start_ids)
    return ids if ids[: len(start)] == start else start + ids


def check_has_text(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Raises ValueError if a text (a tag of the renderer) does not survive a round trip."""
    for text in texts:
        got = decode(tokenizer, tokenizer.encode(text))
        if got != text:
            raise ValueError(
                f"the tokenizer cannot write {text!r} (a round trip gives {got!r}): "
                "use a tokenizer that has these characters, or another renderer template"
            )


@dataclasses.dataclass(frozen=True)
class VocabularyTokenizer:
    """Greedy longest match over a list of strings; characters outside it become `unknown`.

    Id 0 is padding, id 1 the end of the response, then the strings in order.
    """

    pieces: tuple[str, ...]
    unknown: str = "?"

    def __post_init__(self) -> None:
        if len(set(self.pieces)) != len(self.pieces):
            raise ValueError("the vocabulary holds a piece twice")
        if self.unknown not in self.pieces:
            raise ValueError(f"the vocabulary lacks the unknown piece {self.unknown!r}")

    @property
    def vocab_size(self) -> int:
        return len(self.pieces) + 2

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (1,)

    @property
    def pad_id(self) -> int:
        return 0

    @property
    def start_ids(self) -> tuple[int, ...]:
        return ()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: index + 2 for index, piece in enumerate(self.pieces)}

    @functools.cached_property
    def _lengths(self) -> tuple[int, ...]:
        return tuple(sorted({len(piece) for piece in self.pieces}, reverse=True))

    def encode(self, text: str) -> list[int]:
        ids, start = [], 0
        while start < len(text):
            for length in self._lengths:
                found = self._ids.get(text[start : start + length])
                if found is not None:
                    ids.append(found)
                    start += length
                    break
            else:
                ids.append(self._ids[self.unknown])
                start += 1
        return ids

    @property
    def control_tokens(self) -> Mapping[int, str]:
        """No text has them: `encode` makes neither."""
        return {0: "<padding>", 1: "<end>"}

    def encode_plain(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"{token_id=} is outside the vocabulary of {self.vocab_size}")
        return b"" if token_id < 2 else self.pieces[token_id - 2].encode()

    def render_chat(
        self, messages: Sequence[dict[str, str]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The contents one after another: a vocabulary has no chat template, and describes no tools."""
        del tools
        return "".join(message["content"] for message in messages)
