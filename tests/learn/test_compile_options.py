"""Options of the learner's programs: by their devices, and the same program for the same devices."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.learn.compile_options import for_devices, learner_jit, options_for
from jaxtool.learn.grpo import grpo_block
from jaxtool.parallel.axis_rules import single_device


def on(kind):
    device = SimpleNamespace(device_kind=kind)
    return SimpleNamespace(mesh=SimpleNamespace(devices=np.array([device], object)))


def test_only_a_v6e_has_options():
    assert options_for(on("TPU v6 lite")) == (("xla_tpu_scoped_vmem_limit_kib", "98304"),)
    assert options_for(on("TPU v5 lite")) == ()
    assert options_for(single_device()) == ()
    assert for_devices(grpo_block, single_device()) is grpo_block


def test_options_reach_the_compiler_and_make_one_program():
    @learner_jit(static=("power",), donated=("x",))
    def raised(x, *, power):
        return x**power

    assert raised(jnp.full(3, 2.0), power=3).tolist() == [8.0, 8.0, 8.0]
    ours = for_devices(raised, on("TPU v6 lite"))
    assert ours is for_devices(raised, on("TPU v6 lite"))
    with pytest.raises(
        Exception, match="xla_tpu_scoped_vmem_limit_kib"
    ):  # a CPU has no such option
        ours(jnp.full(3, 2.0), power=3)
