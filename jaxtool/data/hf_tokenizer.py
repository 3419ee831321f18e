"""Hugging Face fast tokenizers and their chat templates, without torch.

Covered: directories with tokenizer.json, or what transformers can make one from; byte-level BPE and
SentencePiece-style pieces; several end tokens. Not covered: tokenizers that need code from the hub.
Deviation: no dummy space is put before a text; a prompt that wants one writes it.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as RustTokenizer

from jaxtool.core.local_files import check_is_there, read_json_object
from jaxtool.data.end_tokens import TEXT_FILES, end_ids_of, end_text
from jaxtool.data.plain_text import encode_as_text, is_marker
from jaxtool.data.token_bytes import TEXT_TOKENS, piece_decoder, without_prefix

if TYPE_CHECKING:  # imported where it is used: it takes over a second, and most runs need none
    from transformers import PreTrainedTokenizerFast

# Read as a whole before transformers is; tokenizer.json is larger, and read only to explain a failure.
_CHECKED_FILES = ("config.json", "generation_config.json", "added_tokens.json")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HfTokenizer:
    """A transformers fast tokenizer as our Tokenizer. Made by `tokenizer_from_dir` and others."""

    fast: PreTrainedTokenizerFast
    eos_ids: tuple[int, ...]
    pad_id: int
    text_tokens: tuple[str, ...] = TEXT_TOKENS  # special tokens that are text all the same
    # Passed to the chat template, for example (("enable_thinking", False),) for Qwen3.
    template_variables: tuple[tuple[str, Any], ...] = ()

    @functools.cached_property
    def _rust(self) -> RustTokenizer:
        """The tokenizer proper, set to encode exactly the text it is given."""
        rust = RustTokenizer.from_str(self.fast.backend_tokenizer.to_str())
        spec = json.loads(rust.to_str())
        for part in ("normalizer", "pre_tokenizer"):
            spec[part] = without_prefix(spec[part])
        return RustTokenizer.from_str(json.dumps(spec | {"truncation": None, "padding": None}))

    @functools.cached_property
    def _bytes(self) -> tuple[bytes, ...]:
        decode_piece = piece_decoder(json.loads(self._rust.to_str())["decoder"])
        added = self._rust.get_added_tokens_decoder()
        table = [b""] * self.vocab_size
        for piece, token_id in self._rust.get_vocab(with_added_tokens=True).items():
            if token_id not in added:
                table[token_id] = decode_piece(piece)
        for token_id, token in added.items():
            is_control = token.special and token.content not in self.text_tokens
            table[token_id] = b"" if is_control else decode_piece(token.content)
        return tuple(table)

    @property
    def vocab_size(self) -> int:
        """Largest id + 1; a model's embedding table may be padded beyond it."""
        return self._vocab_size

    @functools.cached_property
    def _vocab_size(self) -> int:
        return max(self._rust.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def start_ids(self) -> tuple[int, ...]:
        """Those before the first token of a text; what is put behind it (an end) is left out."""
        return self._start_ids

    @functools.cached_property
    def _start_ids(self) -> tuple[int, ...]:
        encoded = self.fast("a", return_special_tokens_mask=True)
        pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        before = itertools.takewhile(lambda pair: pair[1] and pair[0] not in self.eos_ids, pairs)
        return tuple(token_id for token_id, _ in before)

    def encode(self, text: str) -> list[int]:
        return self._rust.encode(text, add_special_tokens=False).ids

    @property
    def control_tokens(self) -> Mapping[int, str]:
        """Special tokens, and added ones that read as markup."""
        return self._control_tokens

    @functools.cached_property
    def _control_tokens(self) -> dict[int, str]:
        added = self._rust.get_added_tokens_decoder()
        return {
            token_id: token.content
            for token_id, token in added.items()
            if token.special or is_marker(token.content)
        }

    @functools.cached_property
    def _plain(self) -> RustTokenizer:
        """As `_rust`, with all control tokens declared special, and special tokens read as text."""
        spec = json.loads(self._rust.to_str())
        for token in spec["added_tokens"]:
            token["special"] = token["id"] in self.control_tokens
        rust = RustTokenizer.from_str(json.dumps(spec))
        rust.encode_special_tokens = True
        return rust

    def encode_plain(self, text: str) -> list[int]:
        return encode_as_text(
            text, self.control_tokens, lambda t: self._plain.encode(t, add_special_tokens=False).ids
        )

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of the token; padding rows of an embedding table (ids >= vocab_size) add none."""
        if token_id < 0:
            raise ValueError(f"{token_id=} is negative")
        return self._bytes[token_id] if token_id < self.vocab_size else b""

    def render_chat(
        self, messages: Sequence[dict[str, str]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        if self.fast.chat_template is None:
            raise ValueError(
                "the tokenizer has no chat template: add chat_template.jinja to its directory, "
                "or use a renderer that sets uses_chat_template = false"
            )
        text = self.fast.apply_chat_template(
            list(messages),
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=True,
            **dict(self.template_variables),
        )
        assert isinstance(text, str)
        return text


def tokenizer_from_dir(
    path: str | Path,
    *,
    text_tokens: tuple[str, ...] = TEXT_TOKENS,
    template_variables: tuple[tuple[str, Any], ...] = (),
) -> HfTokenizer:
    """The tokenizer of a Hugging Face model directory. Reads local files only.

    Raises:
      FileNotFoundError: no directory at `path`, or no tokenizer in it.
      ValueError: not a fast tokenizer, no end token, or a decoder that is not supported.
    """
    path = Path(path)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    found = [path / name for name in names if (path / name).is_file()]
    if not found:
        raise FileNotFoundError(f"no tokenizer in {str(path)!r}: it needs one of {names}")
    for file in found:
        check_is_there(file)
    fast = _load_fast(path)
    _check_ends_are_stored(path, found[0])
    return wrap_fast_tokenizer(
        fast,
        more_eos_ids=end_ids_of(path, fast.get_vocab()),
        text_tokens=text_tokens,
        template_variables=template_variables,
    )


def wrap_fast_tokenizer(
    fast: PreTrainedTokenizerFast,
    *,
    more_eos_ids: Sequence[int] = (),
    text_tokens: tuple[str, ...] = TEXT_TOKENS,
    template_variables: tuple[tuple[str, Any], ...] = (),
) -> HfTokenizer:
    """`fast` as our Tokenizer, its decoder checked; without a pad token the end token pads."""
    eos_ids = tuple(dict.fromkeys([*_token_ids(fast, fast.eos_token), *more_eos_ids]))
    if not eos_ids:
        raise ValueError("the tokenizer names no end token: set eos_token in tokenizer_config.json")
    pad_id = next(iter(_token_ids(fast, fast.pad_token)), eos_ids[0])
    tokenizer = HfTokenizer(
        fast=fast,
        eos_ids=eos_ids,
        pad_id=pad_id,
        text_tokens=text_tokens,
        template_variables=template_variables,
    )
    tokenizer.token_bytes(0)  # raises now if the decoder is not supported
    return tokenizer


def _load_fast(path: Path) -> PreTrainedTokenizerFast:
    """Through transformers, which reads a dozen files and names none of them in its errors."""
    for name in _CHECKED_FILES:
        if (path / name).is_file():
            read_json_object(path / name)
    for name in TEXT_FILES:
        end_text(path / name)
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        fast = AutoTokenizer.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers package raises this very class
        if (path / "tokenizer.json").is_file():
            read_json_object(path / "tokenizer.json")
        raise ValueError(
            f"transformers cannot make a tokenizer of {str(path)!r} without running code of its "
            f"own ({_one_line(error)}): save it with tokenizer.json, by a class of transformers"
        ) from error
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise ValueError(f"{type(fast).__name__} of {str(path)!r} is not a fast tokenizer")
    return fast


def _check_ends_are_stored(path: Path, vocabulary: Path) -> None:
    """Raises where transformers would add an end token that no file has: no model has learned it."""
    if vocabulary.name != "tokenizer.json":
        return
    stored = vocabulary.read_text(encoding="utf-8")
    for name in TEXT_FILES:
        text = end_text(path / name)
        spellings = (json.dumps(text, ensure_ascii=ascii_only) for ascii_only in (False, True))
        if text is None or any(spelling in stored for spelling in spellings):
            continue
        config = path / "tokenizer_config.json"
        listed = read_json_object(config).get("added_tokens_decoder") if config.is_file() else None
        if text not in (token.get("content") for token in (listed or {}).values()):
            raise ValueError(
                f"{str(path / name)!r}: eos_token={text!r} is not in the vocabulary of "
                "tokenizer.json: name a token that is"
            )


def _one_line(error: Exception, most: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[:most] + "..."


def _token_ids(fast: PreTrainedTokenizerFast, token: Any) -> list[int]:
    return [] if token is None else [fast.get_vocab()[str(token)]]
