"""The end tokens that the files of a model directory name, apart from what its tokenizer says.

Read as transformers reads them: ids in generation_config.json and config.json, texts in
tokenizer_config.json and special_tokens_map.json. They are united, since chat models spread their
ends over these files. Without the key a file names none, and so does null, save as the id in
generation_config.json, where it would say that nothing ends. All else that is no token is refused.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jaxtool.core.local_files import read_json_object

_ID_FILES = ("generation_config.json", "config.json")
TEXT_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def end_ids_of(directory: Path, vocabulary: Mapping[str, int]) -> list[int]:
    """Ids of the end tokens in the order of the files, some perhaps twice.

    Args:
      vocabulary: ids of all tokens, those added to the model's vocabulary included.

    Raises:
      ValueError: a value that names no token of the vocabulary, with file, key and value.
    """
    known = frozenset(vocabulary.values())
    ids: list[int] = []
    for name in TEXT_FILES:
        text = end_text(directory / name)
        if text is None:
            continue
        if text not in vocabulary:
            raise ValueError(
                f"{str(directory / name)!r}: eos_token={text!r} is not in the vocabulary: "
                "name a token that is, or take the key out"
            )
        ids.append(vocabulary[text])
    for name in _ID_FILES:
        fields = read_json_object(directory / name) if (directory / name).is_file() else {}
        # transformers writes null into config.json where a model names no end.
        if "eos_token_id" in fields and (
            fields["eos_token_id"] is not None or name != "config.json"
        ):
            ids += _ids(fields["eos_token_id"], directory / name, known)
    return ids


def end_text(file: Path) -> str | None:
    """`eos_token` of a file: a text, or an object with `content`; None if there is none."""
    value = read_json_object(file).get("eos_token") if file.is_file() else None
    text = value.get("content") if isinstance(value, dict) else value
    if value is not None and (not isinstance(text, str) or not text):
        raise ValueError(
            f"{str(file)!r}: eos_token={value!r} must be the text of a token, or an object with it "
            "as `content`"
        )
    return text


def _ids(value: Any, file: Path, known: Collection[int]) -> list[int]:
    ids = value if isinstance(value, list) else [value]
    for token_id in ids or [None]:
        # bool is a kind of int in Python, so true would be token 1.
        if type(token_id) is not int or token_id not in known:
            raise ValueError(
                f"{str(file)!r}: eos_token_id={value!r} must be the id of a token, or a list of "
                f"ids; the tokenizer has {len(known)}, the largest is {max(known)}: correct it, "
                "or take the key out"
            )
    return ids
