"""Hugging Face model directories in and out: config.json and safetensors, without torch.

Covered: read part by part for each device (see safetensors_file); written in shards that
transformers, vLLM and SGLang load. Not covered: writing arrays that are sharded over several hosts.
Tokenizer files are jaxtool.data's.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxtool.core.bucket_names import check_local
from jaxtool.core.local_files import read_json_object
from jaxtool.model.config import Dtype, ModelConfig
from jaxtool.model.hf_config import config_from_hf, config_to_hf
from jaxtool.model.param_axes import path_name
from jaxtool.model.safetensors_file import INDEX, SINGLE, SafeTensors, save_tensors
from jaxtool.model.transformer import Params
from jaxtool.model.weight_layout import (
    LAYOUTS,
    Leaf,
    check_tensors,
    leaves,
    load_params,
    to_file,
)
from jaxtool.parallel.axis_rules import Sharding

GIB = 1 << 30


def load_hf(
    path: str | Path,
    *,
    sharding: Sharding,
    ignored_fields: tuple[str, ...] = (),
    dtype: Dtype = "float32",
) -> tuple[ModelConfig, Params]:
    """Config and parameters, as `dtype`, of a Hugging Face directory.

    Raises:
      FileNotFoundError: no config.json or no safetensors there.
      ValueError: an architecture, field or tensor that is not supported, by name; a tensor of
        another shape; a mesh that does not divide the model.
    """
    config = read_model_config(path, ignored_fields)
    with SafeTensors(Path(path)) as file:
        if config.ties_embeddings:
            file.drop_tied_head()
        return config, load_params(config, file, sharding, dtype)


def check_hf_header(path: str | Path, ignored_fields: tuple[str, ...] = ()) -> int:
    """Raises what `load_hf` would of files, names and shapes; returns how many tensors there are.

    No tensor is read, so a stored LM head is taken to be the embedding where the config ties them.
    """
    config = read_model_config(path, ignored_fields)
    with SafeTensors(Path(path)) as file:
        if config.ties_embeddings:
            file.drop_tied_head(is_compared=False)
        check_tensors(config, file)
        return len(file.names)


def read_model_config(path: str | Path, ignored_fields: tuple[str, ...] = ()) -> ModelConfig:
    """ModelConfig of a directory's config.json; ValueError with file, field and value."""
    fields = read_config(path)
    try:
        return config_from_hf(fields, ignored_fields)
    except ValueError as error:
        raise ValueError(f"{str(Path(path) / 'config.json')!r}: {error}") from error


def read_config(path: str | Path) -> dict[str, Any]:
    """The parsed config.json of a directory; ValueError if it is broken."""
    file = Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"no config.json in {str(path)!r}: give a Hugging Face directory")
    return read_json_object(file)


def save_hf(
    path: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    carried: Mapping[str, Any],
    dtype: Dtype = "bfloat16",
    max_shard_bytes: int = 4 * GIB,
) -> list[Path]:
    """Writes `params` as a Hugging Face directory and returns the files.

    Float32 keeps every bit of the parameters.

    Args:
      params: stacked, as `load_params` gives them.
      carried: fields of config.json that a server needs, see `hf_config.CARRIED`.

    Raises:
      ValueError: the parameters are another model's, are placed on other hosts, or `path` holds weights.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    arrays = {path_name(key): x for key, x in flat}
    _check_arrays(config, arrays)

    def tensor_of(leaf: Leaf, layer: int | None) -> np.ndarray:
        x = arrays[leaf.name]
        return np.asarray(x if layer is None else x[layer])

    return write_hf(
        path, config, tensor_of, carried=carried, dtype=dtype, max_shard_bytes=max_shard_bytes
    )


def write_hf(
    path: str | Path,
    config: ModelConfig,
    tensor_of: Callable[[Leaf, int | None], np.ndarray],
    *,
    carried: Mapping[str, Any],
    dtype: Dtype,
    max_shard_bytes: int = 4 * GIB,
) -> list[Path]:
    """Writes config.json and safetensors into the directory `path`; one shard at a time in memory.

    Args:
      tensor_of: one parameter of one layer, in our shape; None for those outside the layers.
    """
    check_local(path, "the directory")
    path = Path(path)
    fields = config_to_hf(config, carried) | {"torch_dtype": dtype}
    if path.exists() and any(path.glob("*.safetensors*")):
        raise ValueError(f"{str(path)!r} already holds weights: give an empty directory")
    path.mkdir(parents=True, exist_ok=True)
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    shards = list(_plan_shards(config, kind.itemsize, max_shard_bytes))
    weight_map: dict[str, str] = {}
    files: list[Path] = []
    for number, shard in enumerate(shards, start=1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors = {
            LAYOUTS[leaf.name].hf.format(layer=layer): to_file(
                leaf.name, tensor_of(leaf, layer).astype(kind)
            )
            for leaf, layer in shard
        }
        save_tensors(tensors, path / name)
        weight_map.update(dict.fromkeys(tensors, name))
        files.append(path / name)
    if len(shards) > 1:
        total = kind.itemsize * sum(leaf.size for leaf in leaves(config))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        files.append(_write_json(path / INDEX, index))
    files.append(_write_json(path / "config.json", fields))
    return files


def _check_arrays(config: ModelConfig, arrays: Mapping[str, jax.Array]) -> None:
    expected = {leaf.name: leaf.shape for leaf in leaves(config)}
    got = {name: tuple(x.shape) for name, x in arrays.items()}
    for name in sorted(expected.keys() | got.keys()):
        if expected.get(name) != got.get(name):
            raise ValueError(
                f"parameter {name!r} has shape {got.get(name)}, the config asks for "
                f"{expected.get(name)}: these parameters are of another model"
            )
    for name, x in arrays.items():
        if not x.is_fully_addressable:
            raise ValueError(f"parameter {name!r} is sharded over several hosts: gather it first")


def _plan_shards(
    config: ModelConfig, itemsize: int, max_shard_bytes: int
) -> Iterator[list[tuple[Leaf, int | None]]]:
    """Tensors in groups of at most `max_shard_bytes`; a larger tensor is a group of its own."""
    shard: list[tuple[Leaf, int | None]] = []
    filled = 0
    for leaf in leaves(config):
        size = itemsize * math.prod(leaf.tensor_shape)
        for layer in leaf.layers():
            if shard and filled + size > max_shard_bytes:
                yield shard
                shard, filled = [], 0
            shard.append((leaf, layer))
            filled += size
    yield shard


def _write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return path
