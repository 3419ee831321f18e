"""GGUF files (llama.cpp) in: config and weights, dequantised tensor by tensor.

Covered: architectures llama (SmolLM2, Llama 3 with its rope_freqs), qwen2 and qwen3, every
quantisation that the gguf package can undo, linear and YaRN scaling. Not covered: split files, GGUF out.
The tokenizer inside the file is read by jaxtool.data.gguf_tokenizer.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxtool.core.gguf_file import gguf_fields, open_gguf
from jaxtool.model.config import Dtype, ModelConfig
from jaxtool.model.gguf_rope import (
    ROPE_SCALING,
    scaling_from_gguf,
    scaling_of_divisors,
    shortest,
)
from jaxtool.model.transformer import Params
from jaxtool.model.weight_layout import Layout, check_finite, check_tensors, load_params
from jaxtool.parallel.axis_rules import Sharding

if TYPE_CHECKING:  # imported where a file is read: it takes longer than most of this package
    import gguf

_ROPE_FREQS = "rope_freqs.weight"
# Fields that say nothing about the computation, or that are checked against tensors below.
_NEUTRAL_FIELDS = (
    "context_length",
    "vocab_size",
    "attention.value_length",
)
_SIZES = (
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "rope.dimension_count",
)
_USED_FIELDS = (*_SIZES, "attention.layer_norm_rms_epsilon", "rope.freq_base")
_MOST = 2.0**31


def load_gguf(
    path: str | Path, *, sharding: Sharding, dtype: Dtype = "float32"
) -> tuple[ModelConfig, Params]:
    """Config and parameters, as `dtype`, of a GGUF file.

    Raises:
      FileNotFoundError: no file at `path`.
      ValueError: not a GGUF file, an architecture, field or tensor that is not supported, a tensor
        of another shape, or a mesh that does not divide the model.
    """
    file = GgufTensors(open_gguf(path))
    config = config_from_gguf(file)
    return config, load_params(config, file, sharding, dtype)


def check_gguf_header(path: str | Path) -> int:
    """Raises what `load_gguf` would of names and shapes; returns how many tensors there are."""
    file = GgufTensors(open_gguf(path))
    check_tensors(config_from_gguf(file), file)
    return len(file.names)


class GgufTensors:
    """The tensors of a GGUF file in Hugging Face's order of rows (a TensorFile)."""

    def __init__(self, reader: "gguf.GGUFReader"):
        self.source = str(reader.data.filename)
        self.fields = gguf_fields(reader)
        self.architecture = str(self.fields.get("general.architecture"))
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.rope_divisors: np.ndarray | None = None
        if _ROPE_FREQS in self._tensors:
            self.rope_divisors = np.asarray(self._tensors.pop(_ROPE_FREQS).data, np.float32)
        self._heads = {
            "attn_q": self.fields.get(f"{self.architecture}.attention.head_count", 1),
            "attn_k": self.fields.get(f"{self.architecture}.attention.head_count_kv", 1),
        }

    @property
    def names(self) -> Collection[str]:
        return self._tensors.keys()

    def tensor_name(self, layout: Layout) -> str:
        return layout.gguf

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        tensor = self._tensors[name]
        import gguf

        # Blocks of a quantised tensor run along its rows, so whole rows are dequantised.
        try:
            block = gguf.dequantize(tensor.data[rows], tensor.tensor_type)
        except NotImplementedError as error:
            raise ValueError(
                f"{self.source!r}: tensor {name!r} is stored as {tensor.tensor_type.name}, which the "
                "gguf package cannot undo: take another quantisation"
            ) from error
        check_finite(block, name, self.source)
        if block.ndim == 2:
            block = block[:, columns]
        part = name.split(".")[-2]
        if self.architecture == "llama" and part in self._heads:
            block = _undo_permutation(block, self.shape(name)[0] // self._heads[part])
        return block


def config_from_gguf(file: GgufTensors) -> ModelConfig:
    """ModelConfig of the file's metadata; refuses what it does not know by file, field and value."""
    try:
        return _config(file)
    except ValueError as error:
        raise ValueError(f"{file.source!r}: {error}") from error


def _config(file: GgufTensors) -> ModelConfig:
    architecture = file.architecture
    if architecture not in ("llama", "qwen2", "qwen3"):
        raise ValueError(
            f"GGUF architecture {architecture!r} is not supported: use llama, qwen2 or qwen3"
        )
    prefix = architecture + "."
    fields = {
        name.removeprefix(prefix): value
        for name, value in file.fields.items()
        if name.startswith(prefix)
    }
    _check_fields(prefix, fields)
    if "token_embd.weight" not in file.names:
        raise ValueError("the weights lack tensor 'token_embd.weight': the file is not complete")
    num_heads = fields["attention.head_count"]
    d_model = fields["embedding_length"]
    rotated = fields.get("rope.dimension_count", d_model // num_heads)
    head_dim = fields.get("attention.key_length", rotated)
    for name in ("rope.dimension_count", "attention.value_length"):
        if fields.get(name, head_dim) != head_dim:
            raise ValueError(f"GGUF field {prefix + name}={fields[name]} must equal {head_dim=}")
    theta = shortest(fields.get("rope.freq_base", 10_000.0))
    scaling = scaling_from_gguf(prefix, fields)
    if file.rope_divisors is not None:
        if scaling is not None:
            raise ValueError(
                f"GGUF field {prefix}rope.scaling.type={fields['rope.scaling.type']!r} and tensor "
                f"{_ROPE_FREQS!r} are two scalings: one of them is wrong"
            )
        scaling = scaling_of_divisors(file.rope_divisors, theta, head_dim, _ROPE_FREQS)
    return ModelConfig(
        vocab_size=file.shape("token_embd.weight")[0],
        d_model=d_model,
        d_ff=fields["feed_forward_length"],
        num_layers=fields["block_count"],
        num_heads=num_heads,
        num_kv_heads=fields.get("attention.head_count_kv", num_heads),
        head_dim=head_dim,
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=shortest(fields["attention.layer_norm_rms_epsilon"]),
        ties_embeddings="output.weight" not in file.names,
        has_qkv_bias=architecture == "qwen2",
        has_qk_norm=architecture == "qwen3",
    )


def carried_from_gguf(file: GgufTensors) -> dict[str, Any]:
    """Fields for `hf_config.CARRIED`, so that the model can be written as a Hugging Face directory."""
    names = {
        "max_position_embeddings": f"{file.architecture}.context_length",
        "bos_token_id": "tokenizer.ggml.bos_token_id",
        "eos_token_id": "tokenizer.ggml.eos_token_id",
        "pad_token_id": "tokenizer.ggml.padding_token_id",
    }
    return {ours: file.fields[theirs] for ours, theirs in names.items() if theirs in file.fields}


def _check_fields(prefix: str, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        is_off = not value or value == "none" or name.startswith(ROPE_SCALING)
        if name not in _USED_FIELDS + _NEUTRAL_FIELDS and not is_off:
            raise ValueError(f"GGUF field {prefix + name}={value!r} is not supported")
    optional = ("attention.head_count_kv", "attention.key_length", "rope.dimension_count")
    for name in _USED_FIELDS:
        if name not in fields and name not in (*optional, "rope.freq_base"):
            raise ValueError(f"the GGUF file lacks the field {prefix + name!r}")
        value = fields.get(name, 1)
        # Models whose layers differ have a list.
        is_right = type(value) is int if name in _SIZES else type(value) in (int, float)
        if not is_right or not 0 < value < _MOST:
            raise ValueError(f"GGUF field {prefix + name}={value!r} must be one positive number")


def _undo_permutation(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Llama GGUFs interleave the two halves of each rotated pair; back to halves one after another.

    `rows` [n·H, ...] are whole heads; llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute.
    """
    pairs = rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
