"""Small weight files for tests, written by the libraries whose formats they are."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from jaxtool.model.config import ModelConfig
from jaxtool.model.weight_layout import LAYOUTS, leaves, to_file


def permute_as_llama_cpp(rows: np.ndarray, heads: int) -> np.ndarray:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(
    path: Path,
    architecture: str,
    config: ModelConfig,
    params: dict[str, Any],
    *,
    qtype: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    rope_freqs: np.ndarray | None = None,
    more_fields: dict[str, Any] | None = None,
) -> None:
    """Matrices in `qtype`, vectors in float32, as llama.cpp's converter lays them out."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(128)
    writer.add_embedding_length(config.d_model)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, value in (more_fields or {}).items():
        adders = {str: writer.add_string, bool: writer.add_bool, float: writer.add_float32}
        adders.get(type(value), writer.add_uint32)(f"{architecture}.{name}", value)
    if rope_freqs is not None:
        writer.add_tensor("rope_freqs.weight", rope_freqs.astype(np.float32))
    heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}
    for leaf in leaves(config):
        value: Any = params
        for part in leaf.name.split("/"):
            value = value[part]
        for layer in leaf.layers():
            name = LAYOUTS[leaf.name].gguf.format(layer=layer)
            tensor = to_file(leaf.name, np.asarray(value if layer is None else value[layer]))
            if architecture == "llama" and name.split(".")[-2] in heads:
                tensor = permute_as_llama_cpp(tensor, heads[name.split(".")[-2]])
            if tensor.ndim == 1:
                writer.add_tensor(name, tensor)
            else:
                stored = gguf.quantize(tensor, qtype)
                writer.add_tensor(name, stored, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
