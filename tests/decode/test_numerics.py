"""The decoder's copy in bfloat16 and int8: how far it is from the learner, and what changes nothing in it."""

import dataclasses
import random

import jax
import numpy as np
import pytest
from helpers.decoding import (
    SMALL,
    assert_kept_is_prefilled_again,
    assert_nearly_same_rows,
    make_engine,
    random_jobs,
    run_jobs,
    teacher_forced,
)
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.decode.publish import DecoderNumerics, publish, publish_ends, publish_layer
from jaxtool.model.quantize import Int8Weight
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = dataclasses.replace(FAMILIES["qwen3"], num_layers=1)  # two: test_engine
# Largest log-prob gap to the float32 learner in nats, at least twice what this policy shows; for
# real weights there is benchmarks/quantization.py.
TWINS = {
    "bfloat16": (DecoderNumerics(dtype="bfloat16"), 0.05),
    "int8": (DecoderNumerics(weights="int8", cache="int8"), 0.05),
    "all": (DecoderNumerics(dtype="bfloat16", weights="int8", cache="int8"), 0.1),
    "int8 weights": (DecoderNumerics(weights="int8"), 0.05),
    "int8 cache": (DecoderNumerics(cache="int8"), 0.05),
}
# One window program and one prompt program: what runs a row does not depend on its neighbours.
_ONE_PROGRAM = ("int8 weights", "int8 cache")


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module", params=TWINS)
def twin_engine(request, params):
    numerics, bound = TWINS[request.param]
    config = dataclasses.replace(SMALL, numerics=numerics)
    if request.param in _ONE_PROGRAM:
        config = dataclasses.replace(
            config, min_view=SMALL.max_tokens, min_prompt_bucket=SMALL.max_tokens
        )
    return make_engine(MODEL, params, config), bound


def test_logprobs_are_the_learners_within_the_stated_bound(twin_engine, params):
    engine, bound = twin_engine
    rows = list(run_jobs(engine, random_jobs(8, outputs=(3, 9))).values())
    expected = teacher_forced(params, MODEL, [row.ids for row in rows])
    gaps = np.concatenate(
        [np.abs(np.asarray(r.logprobs) - e) for r, e in zip(rows, expected, strict=True)]
    )
    gaps = gaps[~np.isnan(gaps)]
    assert gaps.size > 20
    assert gaps.max() < bound
    assert gaps.max() > bound / 50, "the bound says nothing"
    assert engine.counts.reprefilled_tokens == 0


def test_a_kept_cache_gives_the_tokens_of_a_prefilled_one(twin_engine):
    """Another program fills the cache, so one draw may fall otherwise."""
    engine, _ = twin_engine
    assert_kept_is_prefilled_again(engine, 9, seed=3, otherwise=1)


def test_neighbours_change_nothing(twin_engine):
    """Bit for bit where one program decodes every row. Of two views the neighbours choose: to rounding."""
    engine, bound = twin_engine
    jobs = random_jobs(12, outputs=(2, 9), seed=5)
    together = run_jobs(engine, jobs)
    shuffled = list(jobs)
    random.Random(1).shuffle(shuffled)
    waits = random.Random(2)
    others = run_jobs(engine, shuffled, latency=lambda: waits.randrange(4))
    if len(engine.config.views) > 1:
        assert_nearly_same_rows(others, together, atol=bound, otherwise=3)
        return
    assert others.keys() == together.keys()
    for name, row in together.items():
        assert others[name].ids == row.ids
        np.testing.assert_array_equal(others[name].logprobs, row.logprobs)


def test_publishing_compiles_once_and_the_learner_may_donate_what_it_was_made_of(params):
    own = jax.tree.map(lambda x: x.copy(), params)
    for numerics, _ in TWINS.values():
        publish(own, numerics.model(MODEL), single_device(), numerics.weights)
    before = publish_layer._cache_size(), publish_ends._cache_size()
    for numerics, _ in TWINS.values():
        copy = publish(own, numerics.model(MODEL), single_device(), numerics.weights)
        assert not any(x.is_deleted() for x in jax.tree.leaves(own))
        buffers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(own)}
        assert not buffers & {x.unsafe_buffer_pointer() for x in jax.tree.leaves(copy)}
    assert (publish_layer._cache_size(), publish_ends._cache_size()) == before


def test_int8_on_eight_devices_gives_the_tokens_of_one(params):
    numerics = DecoderNumerics(weights="int8", cache="int8")
    config = dataclasses.replace(SMALL, numerics=numerics)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    sharded = make_engine(MODEL, params, config, Sharding(mesh, axis_rules.decode()))
    jobs = random_jobs(8, outputs=(3, 9), seed=16)
    one, eight = run_jobs(make_engine(MODEL, params, config), jobs), run_jobs(sharded, jobs)
    assert_nearly_same_rows(eight, one, atol=TWINS["int8"][1], otherwise=2)
    kernel = sharded._params["layers"][0]["mlp"]["gate"]["kernel"]
    assert isinstance(kernel, Int8Weight)
    assert kernel.values.dtype == np.int8
    assert kernel.scale.sharding.spec[0] == "tensor"


def test_devices_that_send_each_other_bfloat16_sums_stay_within_the_bound(params):
    """Tensor groups of two add up their parts of each row-parallel product in the compute dtype."""
    numerics = DecoderNumerics(dtype="bfloat16", weights="int8", cache="int8", sums="dtype")
    config = dataclasses.replace(SMALL, numerics=numerics)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    sharded = make_engine(MODEL, params, config, Sharding(mesh, axis_rules.decode()))
    rows = list(run_jobs(sharded, random_jobs(8, outputs=(3, 9), seed=16)).values())
    expected = teacher_forced(params, MODEL, [row.ids for row in rows])
    gaps = [np.abs(np.asarray(r.logprobs) - e) for r, e in zip(rows, expected, strict=True)]
    assert np.nanmax(np.concatenate(gaps)) < TWINS["all"][1]
    assert sharded.counts.reprefilled_tokens == 0


def test_norms_and_biases_are_the_learners_numbers_in_every_decoder():
    """A decode step then converts none of them, and none is rounded."""
    model = FAMILIES["qwen2"]
    params = random_params(model)
    for numerics in (TWINS["bfloat16"][0], TWINS["all"][0]):
        copy = publish(params, numerics.model(model), single_device(), numerics.weights)
        attention = copy["layers"][1]["attention"]
        for ours, theirs in (
            (copy["final_norm"], params["final_norm"]),
            (copy["layers"][1]["mlp_norm"]["scale"], params["layers"]["mlp_norm"]["scale"][1]),
            (attention["key"]["bias"], params["layers"]["attention"]["key"]["bias"][1]),
        ):
            assert ours.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
    half = publish(params, TWINS["bfloat16"][0].model(model), single_device())
    assert half["layers"][0]["attention"]["key"]["kernel"].dtype == "bfloat16"
    assert half["embedding"].dtype == "bfloat16"


def test_int8_saves_what_it_promises(params):
    plain = make_engine(MODEL, params)
    small = make_engine(
        MODEL, params, dataclasses.replace(SMALL, numerics=DecoderNumerics(cache="int8"))
    )
    width = MODEL.head_dim
    assert small.cache_bytes / plain.cache_bytes == (width + 4) / (4 * width)
    assert small.cache_bytes == sum(x.nbytes for x in jax.tree.leaves(small._cache))


def test_the_decoders_dtype_is_its_own():
    half = dataclasses.replace(MODEL, compute_dtype="bfloat16", attention="cudnn")
    numerics = DecoderNumerics(dtype="float32").model(half)
    assert (numerics.compute_dtype, numerics.attention, half.compute_dtype) == (
        "float32",
        "auto",
        "bfloat16",
    )
    assert DecoderNumerics().model(half).compute_dtype == "bfloat16"
    with pytest.raises(ValueError, match=r"DecoderNumerics.dtype='half' must be one of"):
        DecoderNumerics(dtype="half")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"DecoderNumerics.sums='int8' must be one of"):
        DecoderNumerics(sums="int8")  # pyright: ignore[reportArgumentType]


def test_what_widens_the_gap_is_named():
    assert DecoderNumerics().differs_from(MODEL) is None
    assert DecoderNumerics(dtype="float32", attention="xla").differs_from(MODEL) is None
    words = DecoderNumerics(dtype="bfloat16", weights="int8").differs_from(MODEL)
    assert words == "decodes in bfloat16, learns in float32, has int8 weights"
