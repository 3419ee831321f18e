"""A tokenizer by the name of its file or directory, for commands that have no run to say which kind it is."""

from pathlib import Path

from jaxtool.core.gguf_file import find_smollm2
from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxtool.data.tokenizer import Tokenizer


def tokenizer_named(name: str) -> Tokenizer:
    """Of a Hugging Face directory, a .gguf file, a SentencePiece .model file, or smollm2.

    Raises:
      FileNotFoundError: there is no such file or directory.
      ValueError: it holds no tokenizer that can be read.
    """
    path = Path(name)
    if path.is_dir():
        return tokenizer_from_dir(path)
    if path.is_file() and path.suffix == ".model":
        return SentencePieceTokenizer(path=name, chat_template=None)
    if path.is_file():
        return tokenizer_from_gguf(path)
    if name == "smollm2":
        return tokenizer_from_gguf(find_smollm2())
    raise FileNotFoundError(
        f"there is no tokenizer {name}: name a Hugging Face directory, a .gguf file, a SentencePiece .model "
        "file, or smollm2"
    )
