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


def check_rows(rows):
    def check(mesh):
        if rows % mesh.size:
            raise ValueError(f"{rows} rows do not divide over {mesh.size}")

    return check


@pytest.mark.parametrize(
    ("rows", "devices", "used"), [(12, 8, 6), (8, 8, 8), (11, 8, 1), (8, 1, 1), (6, 4, 3)]
)
def test_a_mesh_that_may_idle_takes_the_most_devices_that_divide(rows, devices, used, capsys):
    given = jax.devices()[:devices]
    mesh = make_mesh(MeshConfig(may_idle=True), given, check_rows(rows))
    assert list(mesh.devices.flat) == given[:used]
    said = capsys.readouterr().out
    assert ("idle" in said) is (used < devices)
    if (rows, devices) == (12, 8):
        assert said == (
            "devices: 0-5 of 8 (fsdp=6); idle: 6-7, since 12 rows do not divide over 8\n"
        )


def test_an_explicit_mesh_that_does_not_fit_is_refused(capsys):
    with pytest.raises(ValueError, match=r"^12 rows do not divide over 8$"):
        make_mesh(MeshConfig(), None, check_rows(12))
    with pytest.raises(ValueError, match="does not divide 8 devices"):
        make_mesh(MeshConfig(fsdp=1), None, check_rows(12))
    with pytest.raises(ValueError, match=r"no mesh of up to 8 devices fits: mesh .* 1 devices"):
        make_mesh(MeshConfig(fsdp=16, may_idle=True), None, check_rows(16))
    assert capsys.readouterr().out == ""


def test_fixed_axes_stay_where_devices_may_idle():
    mesh = make_mesh(MeshConfig(tensor=2, may_idle=True), jax.devices()[:7], check_rows(8))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "context": 1, "tensor": 2}
