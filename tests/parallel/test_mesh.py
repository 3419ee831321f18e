"""Axis sizes are checked before anything is compiled."""

import jax
import pytest

from jaxtool.parallel.mesh import MeshConfig, make_mesh


def test_one_axis_takes_the_rest():
    assert MeshConfig(data=2, tensor=2).sizes(8) == (2, 2, 1, 2)
    assert MeshConfig(fsdp=2, tensor=-1).sizes(8) == (1, 2, 1, 4)
    assert MeshConfig(context=4).sizes(8) == (1, 2, 4, 1)


@pytest.mark.parametrize("config", [MeshConfig(tensor=3), MeshConfig(data=2, fsdp=2, tensor=4)])
def test_a_mesh_that_does_not_divide_the_devices_is_named(config):
    with pytest.raises(ValueError, match="does not divide 8 devices: make the product"):
        config.sizes(8)


def test_impossible_sizes_raise():
    with pytest.raises(ValueError, match="only one mesh axis may be -1"):
        MeshConfig(data=-1, fsdp=-1)
    with pytest.raises(ValueError, match="must be >= 1 or -1"):
        MeshConfig(tensor=0)


def test_the_mesh_has_auto_axes_over_the_given_devices():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "context": 1, "tensor": 2}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
