"""Raw SentencePiece `.model` files, with byte fallback.

Covered: unigram and BPE models, control pieces written out in a text. Not covered: chat formats that
live in code instead of a template; pass the template. Deviation: no dummy space is put before a text
and white space is kept; a prompt that wants the space writes it. A literal ▁ comes back as a space.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sentencepiece import SentencePieceProcessor

# Generated at import time, so invisible to pyright.
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # pyright: ignore[reportAttributeAccessIssue]

from jaxtool.core.local_files import check_is_there
from jaxtool.data.plain_text import encode_as_text, is_marker
from jaxtool.data.token_bytes import metaspace_bytes, spaced_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentencePieceTokenizer:
    """A `.model` file as our Tokenizer."""

    path: str
    chat_template: str | None = (
        None  # jinja: messages, tools, add_generation_prompt, bos_token, eos_token
    )

    def __post_init__(self) -> None:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"no SentencePiece model at {self.path!r}: give a .model file")
        check_is_there(Path(self.path))
        if self._processor.eos_id() < 0:
            raise ValueError(f"the SentencePiece model {self.path!r} has no end token")

    @functools.cached_property
    def _processor(self) -> SentencePieceProcessor:
        try:
            model = ModelProto.FromString(Path(self.path).read_bytes())
        except DecodeError as error:
            raise ValueError(
                f"{self.path!r} is no SentencePiece model, or is cut short ({error}): "
                "copy or download it again"
            ) from error
        if not model.pieces:
            raise ValueError(f"the SentencePiece model {self.path!r} has no pieces")
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        return SentencePieceProcessor(model_proto=model.SerializeToString())

    @property
    def vocab_size(self) -> int:
        return self._processor.get_piece_size()

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return (self._processor.eos_id(),)

    @property
    def pad_id(self) -> int:
        """The padding piece, or the end piece where there is none."""
        pad_id = self._processor.pad_id()
        return pad_id if pad_id >= 0 else self._processor.eos_id()

    @property
    def start_ids(self) -> tuple[int, ...]:
        """BOS where the model has one, as transformers' Llama, Mistral and Gemma tokenizers do."""
        bos_id = self._processor.bos_id()
        return (bos_id,) if bos_id >= 0 else ()

    @functools.cached_property
    def _control_ids(self) -> dict[str, int]:
        ids = range(self.vocab_size)
        return {self._processor.id_to_piece(i): i for i in ids if self._processor.is_control(i)}

    @functools.cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._control_ids, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @functools.cached_property
    def _bytes(self) -> tuple[bytes, ...]:
        sp = self._processor
        return tuple(
            b""
            if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i)
            # `<0x41>` is a byte only where the model says so: a user's piece may read like one.
            else (metaspace_bytes if sp.is_byte(i) else spaced_bytes)(sp.id_to_piece(i))
            for i in range(self.vocab_size)
        )

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._control_pattern.split(text):
            control = self._control_ids.get(part)
            ids.extend(self._processor.encode(part) if control is None else [control])
        return ids

    @property
    def control_tokens(self) -> Mapping[int, str]:
        """Control pieces, and user-defined ones that read as markup: the model finds these in a text."""
        return self._control_tokens

    @functools.cached_property
    def _control_tokens(self) -> dict[int, str]:
        sp = self._processor
        proto = ModelProto.FromString(Path(self.path).read_bytes())
        kinds = ModelProto.SentencePiece
        return {
            i: piece.piece
            for i, piece in enumerate(proto.pieces)
            if sp.is_control(i) or (piece.type == kinds.USER_DEFINED and is_marker(piece.piece))
        }

    def encode_plain(self, text: str) -> list[int]:
        return encode_as_text(text, self.control_tokens, self._processor.encode)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of the token; padding rows of an embedding table (ids >= vocab_size) add none."""
        if token_id < 0:
            raise ValueError(f"{token_id=} is negative")
        return self._bytes[token_id] if token_id < self.vocab_size else b""

    def render_chat(
        self, messages: Sequence[dict[str, str]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        if self.chat_template is None:
            raise ValueError(
                f"the SentencePiece model {self.path!r} has no chat template: pass chat_template, "
                "or use a renderer that sets uses_chat_template = false"
            )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = to_json
        sp = self._processor
        return environment.from_string(self.chat_template).render(
            messages=list(messages),
            tools=[dict(tool) for tool in tools] or None,
            add_generation_prompt=True,
            bos_token=sp.id_to_piece(sp.bos_id()) if sp.bos_id() >= 0 else "",
            eos_token=sp.id_to_piece(sp.eos_id()),
        )


def to_json(value: Any, indent: int | None = None) -> str:
    """As transformers writes it: jinja's own filter would escape < and > for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)
