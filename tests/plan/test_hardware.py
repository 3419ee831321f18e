"""Machines by name."""

import pytest

from jaxtool.plan.hardware import hardware_named
from jaxtool.train.run_memory import GIB


def test_slices_are_those_of_the_plans():
    found = hardware_named("v6e-64")
    assert (found.kind, found.hosts, found.devices, found.num_devices) == ("tpu", 16, 4, 64)
    assert found.device_bytes == int(31.24 * GIB)
    assert hardware_named("v5e-8").devices == 8  # one host
    assert hardware_named("v5p-128").num_devices == 64  # counts cores
    assert hardware_named("v5e:4x4").num_devices == 16


def test_gpus_have_nine_tenths_of_their_memory():
    one, eight = hardware_named("a100-80g"), hardware_named("H100-8")
    assert (one.kind, one.num_devices, one.device_bytes) == ("gpu", 1, int(72 * GIB))
    assert (eight.hosts, eight.devices) == (1, 8)
    assert one.room == int(0.9 * one.device_bytes)


def test_a_cpu_is_this_machine():
    found = hardware_named("cpu")
    assert (found.kind, found.num_devices) == ("cpu", 1)
    assert found.device_bytes > GIB


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tpu", "unknown hardware 'tpu': there are cpu, a100-40g"),
        ("h100-3", "one machine has 1, 2, 4 or 8 GPUs"),
        ("h100-16", "one machine has 1, 2, 4 or 8 GPUs"),
        ("v6e-7", "unknown accelerator type 'v6e-7': v6e has v6e-1"),
        ("v9-8", "unknown hardware 'v9-8'"),
    ],
)
def test_others_are_refused_with_those_that_there_are(name, said):
    with pytest.raises(ValueError, match=said):
        hardware_named(name)
