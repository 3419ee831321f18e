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


@pytest.mark.parametrize("length", [("context",), ("context", "tensor")], ids=str)
def test_no_device_has_a_whole_weight_or_its_gradient(length):
    rules = dataclasses.replace(AxisRules(), length=length)
    sharding = Sharding(make_mesh(MeshConfig(data=1, fsdp=2, tensor=4)), rules)
    shapes = param_shapes(MODEL)
    layouts = sharding.tree(param_axes(shapes))
    params = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, layouts
    )
    ids = jax.ShapeDtypeStruct((4, TOKENS), jnp.int32, sharding=sharding.named("batch", "length"))

    def total(params, tokens, positions, segments):
        return jnp.sum(hidden_states(params, MODEL, tokens, positions, segments, sharding))

    compiled = (
        jax.jit(jax.grad(total), out_shardings=layouts).lower(params, ids, ids, ids).compile()
    )
    text = compiled.as_text()
    # A device has a quarter of the hidden width: 88 of 352.
    assert re.search(rf"f32\[{WIDTH},{HIDDEN // 4}\]", text)
    whole = rf"f32\[(?:{WIDTH},{HIDDEN}|{HIDDEN},{WIDTH})\]"
    assert not re.search(whole, text)
