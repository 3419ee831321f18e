"""The sharding table is complete and of the right rank, and a mesh that does not divide is named."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from helpers.tiny_models import FAMILIES

from jaxtool.model.param_axes import (
    CACHE_AXES,
    axes_of,
    check_divides,
    param_axes,
    param_shapes,
    path_name,
)
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

PRESETS = {
    "fsdp_tensor": axis_rules.fsdp_tensor(),
    "decode": axis_rules.decode(),
    "replicated": axis_rules.replicated(),
}
MESHES = [(8, 1, 1), (1, 8, 1), (1, 4, 2), (2, 2, 2), (4, 1, 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_axes_of_its_rank(family):
    shapes = param_shapes(FAMILIES[family])
    flat, _ = jax.tree_util.tree_flatten_with_path(shapes)
    assert len(flat) >= 11
    for path, leaf in flat:
        assert len(axes_of(path_name(path))) == len(leaf.shape), path_name(path)
    param_axes(shapes)  # raises where the test above would fail


def test_a_parameter_without_a_line_raises():
    with pytest.raises(ValueError, match="'layers/mlp/extra/kernel' has no line"):
        axes_of("layers/mlp/extra/kernel")


def test_a_parameter_of_another_rank_raises():
    with pytest.raises(ValueError, match="'final_norm' has rank 2"):
        param_axes({"final_norm": jax.ShapeDtypeStruct((2, 2), jnp.float32)})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_every_preset_is_valid_on_every_mesh(family, preset, sizes):
    mesh = make_mesh(MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2]))
    sharding = Sharding(mesh, PRESETS[preset])
    shapes = param_shapes(FAMILIES[family])
    placed = sharding.tree(param_axes(shapes))
    for spec, leaf in zip(jax.tree.leaves(placed), jax.tree.leaves(shapes), strict=True):
        spec.shard_shape(leaf.shape)  # raises if a part does not divide
    assert len(sharding.named(*CACHE_AXES).spec) == 4
    check_divides(FAMILIES[family], sharding)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 49}, r"vocab_size=49 is no multiple of the mesh's tensor=2"),
        ({"d_model": 30}, r"d_model=30 is no multiple of the mesh's fsdp=4"),
        ({"d_ff": 63}, r"d_ff=63 .* tensor=2: make tensor divide 63"),
        ({"num_heads": 3, "num_kv_heads": 3}, r"num_heads=3 .* AxisRules\(heads=\(\)\)"),
        ({"num_heads": 4, "num_kv_heads": 1}, r"num_kv_heads=1 .* AxisRules\(kv_heads=\(\)\)"),
    ],
)
def test_a_mesh_that_does_not_divide_is_named(change, message):
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)))
    config = dataclasses.replace(FAMILIES["llama"], **change)
    with pytest.raises(ValueError, match=message):
        check_divides(config, sharding)


def test_an_axis_kept_whole_need_not_divide():
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)), AxisRules(kv_heads=()))
    check_divides(dataclasses.replace(FAMILIES["llama"], num_kv_heads=1), sharding)
