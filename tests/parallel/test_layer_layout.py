"""What a layer's gradient sends where the residual stream is sharded over the tensor axis too.

Products read whole rows and parts of the weights. Left to itself the compiler took parts of the rows and whole
weights, whose gradients it added up over all devices.
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.model.transformer import hidden_states
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

WIDTH, HIDDEN, TOKENS = 64, 352, 256
MODEL = ModelConfig(
    vocab_size=128,
    d_model=WIDTH,
    d_ff=HIDDEN,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,
    remat="block",
)


def lowered(model: ModelConfig, length: tuple[str, ...]) -> jax.stages.Lowered:
    """The gradient of a sum of hidden states, on 2 x 4 devices."""
    rules = dataclasses.replace(AxisRules(), length=length)
    sharding = Sharding(make_mesh(MeshConfig(data=1, fsdp=2, tensor=4)), rules)
    shapes = param_shapes(model)
    layouts = sharding.tree(param_axes(shapes))
    params = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, layouts
    )
    ids = jax.ShapeDtypeStruct((4, TOKENS), jnp.int32, sharding=sharding.named("batch", "length"))

    def total(params, tokens, positions, segments):
        hidden = hidden_states(params, model, tokens, positions, segments, sharding)
        return jnp.sum(hidden.astype(jnp.float32))

    return jax.jit(jax.grad(total), out_shardings=layouts).lower(params, ids, ids, ids)


@pytest.mark.parametrize("length", [("context",), ("context", "tensor")], ids=str)
def test_no_device_has_a_whole_weight_or_its_gradient(length):
    text = lowered(MODEL, length).compile().as_text()
    # A device has a quarter of the hidden width: 88 of 352.
    assert re.search(rf"f32\[{WIDTH},{HIDDEN // 4}\]", text)
    whole = rf"f32\[(?:{WIDTH},{HIDDEN}|{HIDDEN},{WIDTH})\]"
    assert not re.search(whole, text)


def test_device_sums_are_those_of_the_products_that_sum_over_devices():
    """Of a layer: two products forward, and of five gradients of inputs; what is summed on a device stays float32."""
    dots = re.compile(r"dot_general.*-> tensor<([\dx]+)x(f32|bf16)>")
    found = {}
    for sums in ("float32", "compute_dtype"):
        model = dataclasses.replace(MODEL, compute_dtype="bfloat16", device_sums=sums)
        text = lowered(dataclasses.replace(model, remat="none"), ("context", "tensor")).as_text()
        found[sums] = [(shape, dtype) for shape, dtype in dots.findall(text)]
    wide = f"4x{TOKENS}x{WIDTH}"
    assert {dtype for _, dtype in found["float32"]} == {"f32"}
    narrow = [shape for shape, dtype in found["compute_dtype"] if dtype == "bf16"]
    assert narrow == [wide] * (2 + 5)
