"""One table from logical to mesh axes: collisions and unknown names raise."""

import pytest
from jax.sharding import PartitionSpec

from jaxtool.parallel.axis_rules import AxisRules, decode, replicated


def test_spec_follows_the_table():
    assert AxisRules().spec("layers", "embed", "heads", "head_dim") == PartitionSpec(
        None, ("fsdp", "context"), ("tensor",), None
    )
    assert AxisRules().spec("batch", None) == PartitionSpec(("data", "fsdp"), None)
    assert decode().spec("embed", "mlp") == PartitionSpec(None, ("tensor",))
    assert replicated().spec("vocab", "embed") == PartitionSpec(None, None)


def test_two_axes_on_one_mesh_axis_collide():
    with pytest.raises(ValueError, match="'batch' and 'embed' both map to mesh axis 'fsdp'"):
        AxisRules().spec("batch", "length", "embed")


def test_an_unknown_axis_is_named():
    with pytest.raises(ValueError, match="unknown logical axis 'haeds'"):
        AxisRules().spec("haeds")
