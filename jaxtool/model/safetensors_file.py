"""Weights in safetensors files: opened, read in part, every fault named with its file; and written.

Covered: one file or shards with an index, float32, bfloat16 and float16. An index may name files of
its own directory only. Not covered: .bin files, quantised tensors.
"""

import json
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxtool.core.local_files import check_is_there, read_json_object
from jaxtool.model.weight_layout import LAYOUTS, Layout, check_finite

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_FLOATS = {"F32", "BF16", "F16"}
_TIED_ROWS = 4096  # compared at a time


class SafeTensors:
    """The tensors of one or several safetensors files (a TensorFile); closed by `with`."""

    def __init__(self, directory: Path):
        self.source = str(directory)
        self._stack = ExitStack()
        self._files: dict[str, Any] = {}
        self._paths: dict[str, Path] = {}
        try:
            self._open_all(directory)
        except BaseException:
            self._stack.close()
            raise

    def _open_all(self, directory: Path) -> None:
        for path in weight_files(directory):
            file = self._stack.enter_context(open_safetensors(path))
            for name in list(file.keys()):
                # Llama 1 checkpoints store RoPE's frequencies, which follow from the config.
                if name.endswith("rotary_emb.inv_freq"):
                    continue
                if name in self._files:
                    raise ValueError(
                        f"tensor {name!r} is in {str(self._paths[name])!r} and in {str(path)!r}: "
                        "take one of the files away"
                    )
                self._files[name], self._paths[name] = file, path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def names(self) -> Collection[str]:
        return self._files.keys()

    def tensor_name(self, layout: Layout) -> str:
        return layout.hf

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        tensor = self._files[name].get_slice(name)
        check_is_float(tensor.get_dtype(), name, self._paths[name])
        block = tensor[rows] if len(tensor.get_shape()) == 1 else tensor[rows, columns]
        check_finite(block, name, self._paths[name])
        return block

    def drop_tied_head(self, is_compared: bool = True) -> None:
        """Forgets a stored LM head that is the embedding; raises if it is compared and is not."""
        head, table = LAYOUTS["lm_head"].hf, LAYOUTS["embedding"].hf
        if head not in self._files or table not in self._files:
            return
        size = self.shape(table)[0] if is_compared else 0
        for start in range(0, size, _TIED_ROWS):
            part = slice(start, min(start + _TIED_ROWS, size))
            rows, expected = (self.read(name, part, slice(None)) for name in (head, table))
            if not np.array_equal(rows, expected):
                raise ValueError(
                    f"{self.source!r}: tensor {head!r} differs from {table!r} although the config ties them: "
                    "set tie_word_embeddings to false in config.json"
                )
        del self._files[head]


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """`safe_open` for numpy; a file that is none, or not all of one, is refused by name."""
    check_is_there(path)
    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(
            f"{str(path)!r} is no safetensors file, or is cut short ({error}): "
            "copy or download it again"
        ) from error
    with file as opened:
        yield opened


def save_tensors(tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes a file that others may read as they may read any new one; safetensors makes it 0600."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(dict(tensors), path, metadata={"format": "pt"})
    path.chmod(mode)


def check_is_float(dtype: str, name: str, path: Path) -> None:
    """Raises ValueError for integers and numbers of 8 bits and less, of which quantisation is made."""
    if dtype not in _FLOATS:
        raise ValueError(
            f"{str(path)!r}: tensor {name!r} has dtype {dtype}: only {sorted(_FLOATS)} are read"
        )


def weight_files(directory: Path) -> list[Path]:
    """The files that hold a directory's weights: those its index names, or the only one."""
    index = directory / INDEX
    files = _indexed(index) if index.is_file() else [directory / SINGLE]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(
                f"no weight file {str(file)!r}: the directory needs {SINGLE}, "
                f"or {INDEX} and every shard that it names"
            )
    if index.is_file() and directory / SINGLE not in files and (directory / SINGLE).is_file():
        raise ValueError(
            f"{str(directory)!r} holds {SINGLE} and {INDEX}, which names other files: "
            "take away the one that is not meant"
        )
    return files


def _indexed(index: Path) -> list[Path]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(
            f"{str(index)!r}: weight_map must give a file for every tensor, not "
            f"{json.dumps(weight_map)[:80]}: download it again"
        )
    for tensor, name in weight_map.items():
        if not _is_inside(index.parent, name):
            raise ValueError(
                f"{str(index)!r}: weight_map puts tensor {tensor!r} into {name!r}, which is no file "
                "of this directory: copy the file here and write its bare name"
            )
    return [index.parent / name for name in sorted(set(weight_map.values()))]


def _is_inside(directory: Path, name: Any) -> bool:
    """A bare file name, and no link out; links of the Hugging Face cache into its blobs are kept."""
    if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name:
        return False
    if "/" in name or "\\" in name:
        return False
    real, home = (directory / name).resolve(), directory.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    return real.parent in (home, blobs)
