"""How parameters are stored in Hugging Face and GGUF files, and the streaming of files into sharded arrays.

Covered: a few tensors at a time go from the file to the devices, each device's part only, so the host
never holds a second copy of the model; every tensor is checked by name and shape before the first
one is read. Not covered: tensors that fuse several of our parameters (Phi-3's qkv_proj), experts.
"""

import dataclasses
import math
import os
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.model.config import Dtype, ModelConfig
from jaxtool.model.param_axes import axes_of, check_divides, param_shapes, path_name
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding

Index = tuple[slice, ...]
_THREADS = min(8, os.cpu_count() or 1)  # tensors of one kind that are read at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Files store matrices as [out, in] with heads flattened; axes count without the layer axis."""

    hf: str  # tensor name in a Hugging Face checkpoint, {layer} to be filled in
    gguf: str  # tensor name in a GGUF file
    rows: tuple[int, ...]  # our axes that the file flattens into its first axis
    columns: tuple[int, ...] = ()  # our axes that it flattens into its second; none: a vector

    @property
    def order(self) -> tuple[int, ...]:
        return self.rows + self.columns


_HF_LAYER, _GGUF_LAYER = "model.layers.{layer}.", "blk.{layer}."


def _layer(hf: str, gguf: str, rows: tuple[int, ...], columns: tuple[int, ...] = ()) -> Layout:
    return Layout(hf=_HF_LAYER + hf, gguf=_GGUF_LAYER + gguf, rows=rows, columns=columns)


LAYOUTS: Mapping[str, Layout] = {
    "embedding": Layout(
        hf="model.embed_tokens.weight", gguf="token_embd.weight", rows=(0,), columns=(1,)
    ),
    "lm_head": Layout(hf="lm_head.weight", gguf="output.weight", rows=(1,), columns=(0,)),
    "final_norm": Layout(hf="model.norm.weight", gguf="output_norm.weight", rows=(0,)),
    "layers/attention_norm/scale": _layer("input_layernorm.weight", "attn_norm.weight", (0,)),
    "layers/mlp_norm/scale": _layer("post_attention_layernorm.weight", "ffn_norm.weight", (0,)),
    "layers/attention/query/kernel": _layer(
        "self_attn.q_proj.weight", "attn_q.weight", (1, 2), (0,)
    ),
    "layers/attention/key/kernel": _layer("self_attn.k_proj.weight", "attn_k.weight", (1, 2), (0,)),
    "layers/attention/value/kernel": _layer(
        "self_attn.v_proj.weight", "attn_v.weight", (1, 2), (0,)
    ),
    "layers/attention/query/bias": _layer("self_attn.q_proj.bias", "attn_q.bias", (0, 1)),
    "layers/attention/key/bias": _layer("self_attn.k_proj.bias", "attn_k.bias", (0, 1)),
    "layers/attention/value/bias": _layer("self_attn.v_proj.bias", "attn_v.bias", (0, 1)),
    "layers/attention/output/kernel": _layer(
        "self_attn.o_proj.weight", "attn_output.weight", (2,), (0, 1)
    ),
    "layers/attention/query_norm/scale": _layer(
        "self_attn.q_norm.weight", "attn_q_norm.weight", (0,)
    ),
    "layers/attention/key_norm/scale": _layer(
        "self_attn.k_norm.weight", "attn_k_norm.weight", (0,)
    ),
    "layers/mlp/gate/kernel": _layer("mlp.gate_proj.weight", "ffn_gate.weight", (1,), (0,)),
    "layers/mlp/up/kernel": _layer("mlp.up_proj.weight", "ffn_up.weight", (1,), (0,)),
    "layers/mlp/down/kernel": _layer("mlp.down_proj.weight", "ffn_down.weight", (1,), (0,)),
}


class TensorFile(Protocol):
    """Tensors by the names of `Layout.hf` or `Layout.gguf`, read in part."""

    source: str  # a file or a directory, for messages

    @property
    def names(self) -> Collection[str]: ...

    def tensor_name(self, layout: Layout) -> str:
        """The field of `layout` that this kind of file goes by."""
        ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str, rows: slice, columns: slice) -> np.ndarray:
        """A part of a matrix, or of a vector (columns are ignored), in the file's float type.

        Raises:
          ValueError: a number of the part is not finite; see `check_finite`.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
    """One parameter: its name, its shape with the layer axis in front where it has one."""

    name: str
    shape: tuple[int, ...]

    @property
    def num_layers(self) -> int | None:
        return self.shape[0] if self.name.startswith("layers/") else None

    @property
    def size(self) -> int:
        """Numbers in all layers."""
        return math.prod(self.shape)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """Shape without the layer axis."""
        return self.shape if self.num_layers is None else self.shape[1:]

    def file_shape(self) -> tuple[int, ...]:
        """Shape of one tensor in the file."""
        layout = LAYOUTS[self.name]
        groups = (layout.rows, layout.columns) if layout.columns else (layout.rows,)
        return tuple(math.prod(self.tensor_shape[axis] for axis in axes) for axes in groups)

    def layers(self) -> Iterator[int | None]:
        yield from [None] if self.num_layers is None else range(self.num_layers)


def leaves(config: ModelConfig) -> list[Leaf]:
    """Every parameter of a model of this config."""
    flat, _ = jax.tree_util.tree_flatten_with_path(param_shapes(config))
    return [Leaf(name=path_name(path), shape=tuple(x.shape)) for path, x in flat]


def load_params(
    config: ModelConfig, file: TensorFile, sharding: Sharding, dtype: Dtype = "float32"
) -> Params:
    """Parameters placed by `sharding`, streamed tensor by tensor; never all of them in another dtype.

    Raises:
      ValueError: a tensor is missing, has another shape, or is one this model has no place for;
        or the mesh does not divide the model.
    """
    check_divides(config, sharding)
    check_tensors(config, file)
    params: Params = {}
    with ThreadPoolExecutor(_THREADS, "read") as pool:
        for leaf in leaves(config):
            branch, path = params, leaf.name.split("/")
            for part in path[:-1]:
                branch = branch.setdefault(part, {})
            branch[path[-1]] = _load_leaf(leaf, file, sharding, dtype, pool)
    return params


def check_tensors(config: ModelConfig, file: TensorFile) -> None:
    """Raises ValueError unless the file holds exactly this model's tensors."""
    expected: set[str] = set()
    for leaf in leaves(config):
        for layer in leaf.layers():
            name = file.tensor_name(LAYOUTS[leaf.name]).format(layer=layer)
            expected.add(name)
            if name not in file.names:
                raise ValueError(
                    f"the weights lack tensor {name!r}: {file.source!r} is not complete, "
                    "or its config describes another model"
                )
            if file.shape(name) != leaf.file_shape():
                raise ValueError(
                    f"tensor {name!r} has shape {file.shape(name)}, the config asks for "
                    f"{leaf.file_shape()}: the weights in {file.source!r} are of another model"
                )
    extra = sorted(set(file.names) - expected)
    if extra:
        raise ValueError(
            f"the weights hold {len(extra)} tensors that this model has no place for, "
            f"first {extra[0]!r}: the model in {file.source!r} has a feature that is not supported"
        )


# Exponent bits of a float, all set where the number is not finite.
_EXPONENTS = {
    "float32": (np.uint32, 0x7F80_0000),
    "bfloat16": (np.uint16, 0x7F80),
    "float16": (np.uint16, 0x7C00),
}
_CHECKED_AT_ONCE = 1 << 16


def check_finite(block: np.ndarray, name: str, path: str | Path) -> None:
    """Raises ValueError if a number of a tensor read from `path` is NaN or infinite.

    Looks at the bits, a piece that stays in the processor's cache at a time: 2.5 GB/s, where
    np.isfinite reads bfloat16 at 0.3.
    """
    kind, mask = _EXPONENTS[block.dtype.name]
    bits = np.ascontiguousarray(block).reshape(-1).view(kind)
    starts = range(0, bits.size, _CHECKED_AT_ONCE)
    pieces = (bits[start : start + _CHECKED_AT_ONCE] & kind(mask) for start in starts)
    if any(int(piece.max()) == mask for piece in pieces):
        count = np.count_nonzero((bits & kind(mask)) == mask)
        raise ValueError(
            f"{str(path)!r}: tensor {name!r} has NaN or infinite numbers ({count} of the {block.size} "
            "read): the model is damaged, take another copy or an earlier checkpoint"
        )


def to_file(name: str, tensor: np.ndarray) -> np.ndarray:
    """One parameter of one layer as the file stores it, contiguous."""
    layout = LAYOUTS[name]
    rows = math.prod(tensor.shape[axis] for axis in layout.rows)
    stored = tensor.transpose(layout.order).reshape((rows, -1) if layout.columns else (rows,))
    return np.ascontiguousarray(stored)


def from_file(
    name: str, file: TensorFile, layer: int | None, shape: tuple[int, ...], index: Index
) -> np.ndarray:
    """The part `index` of one parameter of one layer, whose whole shape is `shape`."""
    layout = LAYOUTS[name]
    spans = [_span(axes, shape, index) for axes in (layout.rows, layout.columns)]
    block = file.read(file.tensor_name(layout).format(layer=layer), *spans)
    # The file was sliced along the first axis of each group only; the others are sliced here.
    leading = {axes[0] for axes in (layout.rows, layout.columns) if axes}
    sizes = [len(range(shape[a])[index[a]]) if a in leading else shape[a] for a in layout.order]
    inner = tuple(slice(None) if a in leading else index[a] for a in layout.order)
    return block.reshape(sizes)[inner].transpose(np.argsort(layout.order))


def whole_from_file(leaf: Leaf, layer: int | None, file: TensorFile) -> np.ndarray:
    """One parameter of one layer, all of it, in our shape."""
    shape = leaf.tensor_shape
    return from_file(leaf.name, file, layer, shape, (slice(None),) * len(shape))


def _span(axes: tuple[int, ...], shape: tuple[int, ...], index: Index) -> slice:
    """Part of a flattened axis that holds the part `index` of its first axis."""
    if not axes:
        return slice(None)
    inner = math.prod(shape[axis] for axis in axes[1:])
    start, stop, _ = index[axes[0]].indices(shape[axes[0]])
    return slice(start * inner, stop * inner)


def _load_leaf(
    leaf: Leaf, file: TensorFile, sharding: Sharding, dtype: Dtype, pool: ThreadPoolExecutor
) -> jax.Array:
    axes = axes_of(leaf.name)
    placed = sharding.named(*axes)
    if leaf.num_layers is None:
        x = _place(leaf, None, file, placed)
        return x if x.dtype == dtype else x.astype(dtype)
    layer_placed = sharding.named(*axes[1:])
    stack = jax.jit(lambda: jnp.zeros(leaf.shape, dtype), out_shardings=placed)()
    # The stack is donated: filled in place, not copied for each layer.
    fill = jax.jit(_fill_layer, donate_argnums=0, out_shardings=placed)
    ahead: deque[Future[jax.Array]] = deque()
    for layer in range(leaf.num_layers + _THREADS):
        if layer < leaf.num_layers:
            ahead.append(pool.submit(_place, leaf, layer, file, layer_placed))
        if layer >= _THREADS:
            stack = fill(stack, ahead.popleft().result(), np.int32(layer - _THREADS))
            # Waits, so that host copies of the tensors do not queue up.
            stack.block_until_ready()
    return stack


def _place(leaf: Leaf, layer: int | None, file: TensorFile, placed: Any) -> jax.Array:
    shape = leaf.tensor_shape

    def block(index: Index | None) -> np.ndarray:
        if index is None:
            return whole_from_file(leaf, layer, file)
        return from_file(leaf.name, file, layer, shape, index)

    return jax.make_array_from_callback(shape, placed, block)


def _fill_layer(stack: jax.Array, values: jax.Array, layer: jax.Array) -> jax.Array:
    def bits(x: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(x, jnp.uint16)

    values = values.astype(stack.dtype)
    if stack.dtype != jnp.bfloat16:
        return jax.lax.dynamic_update_index_in_dim(stack, values, layer, 0)
    # XLA's CPU compiler would take every number through float32 and back, at a tenth of the speed.
    words = jax.lax.dynamic_update_index_in_dim(bits(stack), bits(values), layer, 0)
    return jax.lax.bitcast_convert_type(words, stack.dtype)
