"""Slices by name, and the table of what chips can do."""

import importlib.util

import pytest

from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.plan import chips
from jaxtool.plan.chips import CHIPS, parse_slice, slice_devices


@pytest.mark.parametrize(
    ("text", "name", "devices"),
    [
        ("v5p:4x4x8", "v5p:4x4x8", 128),
        ("v5p-128", "v5p:4x4x4", 64),  # counts cores, two a chip
        ("v6e-64", "v6e:8x8", 64),
        ("V5E:2x4", "v5e:2x4", 8),
        ("v5litepod-8", "v5e:2x4", 8),
        ("v4-16", "v4:2x2x2", 16),  # one device per core
        ("tpu7x:2x2x2", "tpu7x:2x2x2", 16),
    ],
)
def test_topologies_and_accelerator_types(text, name, devices):
    tpu = parse_slice(text)
    assert (tpu.name, tpu.num_devices) == (name, devices)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v9:2x2", "generations: v4, v5e, v5p, v6e, tpu7x"),
        ("v5p", "write GENERATION:SHAPE"),
        ("v5p:4x4", "a v5p slice has 3 dimensions"),
        ("v6e:2x2x2", "a v6e slice has 2 dimensions"),
        ("v6e-48", "v6e has v6e-1, v6e-4, v6e-8"),
        ("v5p-8x", "unknown topology 'v5p-8x'"),
    ],
)
def test_an_unknown_slice_is_refused_with_what_there_is(text, message):
    with pytest.raises(ValueError, match=message):
        parse_slice(text)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("v5e-8", 1),
        ("v5e-16", 4),
        ("v6e-8", 1),
        ("v6e-64", 16),
        ("v5p-8", 1),
        ("v5p-128", 16),
        ("v4-16", 2),
    ],
)
def test_hosts_of_a_slice(text, hosts):
    tpu = parse_slice(text)
    assert tpu.num_hosts == hosts
    assert tpu.host.num_hosts == 1
    assert tpu.host.num_devices == tpu.num_devices // hosts


def test_the_table_agrees_with_itself():
    """Compute to bandwidth, FLOPs per byte: all generations lie between 100 and 700."""
    for chip in CHIPS.values():
        assert 100 < chip.peak_flops / chip.hbm_bytes_per_s < 700
        assert chip.ici_bytes_per_s < chip.hbm_bytes_per_s
    # The peak is what the matrix units do at the clock: 4 x 128 x 128 x 2, two cores in a v5p.
    assert CHIPS["v5e"].peak_flops == pytest.approx(4 * 128 * 128 * 2 * 1.5e9, rel=0.01)
    assert CHIPS["v5p"].peak_flops == pytest.approx(8 * 128 * 128 * 2 * 1.75e9, rel=0.01)
    assert CHIPS["v4"].peak_flops == pytest.approx(4 * 128 * 128 * 2 * 1.05e9, rel=0.01)


def test_a_missing_compiler_says_what_to_install(monkeypatch):
    monkeypatch.setattr(chips.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install 'libtpu"):
        slice_devices(parse_slice("v5e-8"))


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@needs_libtpu
def test_a_slice_is_cut_by_four_although_none_of_its_axes_has_four():
    """Otherwise no model with four key/value heads could use 8 x 8 chips."""
    mesh = make_mesh(MeshConfig(tensor=4), slice_devices(parse_slice("v6e-64")))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 16, "context": 1, "tensor": 4}


@needs_libtpu
@pytest.mark.parametrize("text", ["v5e-16", "v5e-64", "v6e-16", "v5p-128", "v4-16", "tpu7x:2x2x2"])
def test_libtpu_counts_the_same_hosts(text):
    """But for v5e-8 and v6e-8, which it describes as two hosts of four."""
    tpu = parse_slice(text)
    devices = slice_devices(tpu)
    of_host = [sum(device.process_index == i for device in devices) for i in range(tpu.num_hosts)]
    assert of_host == [tpu.num_devices // tpu.num_hosts] * tpu.num_hosts


@needs_libtpu
def test_libtpu_knows_the_slices_and_refuses_others():
    assert len(slice_devices(parse_slice("v5e-8"))) == 8
    with pytest.raises(ValueError, match="libtpu knows no topology 'v5p:3x5x7'"):
        slice_devices(parse_slice("v5p:3x5x7"))
