"""RoPE in config.json: every spelling of the same model, and nothing dropped in silence."""

import pytest

from jaxtool.model.config import LinearScaling, RopeScaling, YarnScaling
from jaxtool.model.hf_rope import rope_from_hf, rope_to_hf

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
)


@pytest.mark.parametrize(
    ("fields", "theta", "scaling"),
    [
        ({}, 10_000.0, None),  # transformers' default
        ({"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": {}}, 5e5, None),
        ({"rope_parameters": {"rope_theta": 5e5}}, 5e5, None),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, 5e5, None),
        ({"rope_parameters": {"rope_theta": 5, "partial_rotary_factor": None}}, 5.0, None),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5}}, 5e5, None),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}, 5e5, None),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, 1e6, None),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": None}},
            1e6,
            None,
        ),
        ({"rope_parameters": {"full_attention": LLAMA3 | {"rope_theta": 7.0}}}, 7.0, SCALING),
        ({"rope_theta": 7.0, "rope_parameters": {"full_attention": LLAMA3}}, 7.0, SCALING),
        ({"rope_theta": 7.0, "rope_scaling": LLAMA3 | {"type": "llama3"}}, 7.0, SCALING),
        ({"rope_theta": 7.0, "rope_scaling": LLAMA3, "rope_parameters": LLAMA3}, 7.0, SCALING),
    ],
)
def test_spellings_of_the_same_model(fields, theta, scaling):
    assert rope_from_hf(fields) == (theta, scaling)


NESTED = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_parameters": NESTED}, r"rope_parameters has entries for \['sliding_attention'\]"),
        ({"rope_parameters": {"attention": {"rope_theta": 1e6}}}, r"entries for \['attention'\]"),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "rope_theta": 1e4}},
            r"entries for \['rope_theta'\]",
        ),
        ({"rope_parameters": {"theta": 1e6}}, r"rope_parameters.theta=1000000.0 are not known"),
        ({"rope_parameters": {"rope_theta": 1e6, "factor": 4.0}}, "rope_parameters.factor=4.0"),
        ({"rope_scaling": {"rope_type": "default", "factor": 2}}, "rope_scaling.factor=2"),
        ({"rope_scaling": {"rope_type": "linear"}}, r"linear needs exactly \['factor'\], got \[\]"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor=0.5 must be 1 or more"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_type 'longrope'"),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            "original_max_position.*=None must be a positive",
        ),
        ({"rope_parameters": {"rope_type": ["llama3"]}}, "rope_type .'llama3'."),
        (
            {"rope_scaling": LLAMA3 | {"type": "yarn"}},
            "rope_type='llama3' and .*type='yarn' differ",
        ),
        ({"rope_scaling": LLAMA3 | {"beta": 1}}, "llama3 needs exactly"),
        ({"rope_scaling": LLAMA3 | {"factor": "8"}}, "factor='8' must be a positive number"),
        ({"rope_scaling": LLAMA3 | {"factor": 0}}, "factor=0 must be a positive number"),
        ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "must be less than high_freq"),
        ({"rope_theta": "1e6"}, "rope_theta='1e6' must be a positive number"),
        ({"rope_theta": True}, "rope_theta=True must be"),
        ({"rope_theta": 0}, "rope_theta=0 must be"),
        ({"rope_theta": float("inf")}, "rope_theta=inf must be"),
        ({"rope_theta": float("nan")}, "rope_theta=nan must be"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "10000.0 differ: take"),
        (
            {"rope_scaling": LLAMA3, "rope_parameters": {"rope_theta": 5.0}},
            "rope_scaling=.* differ",
        ),
        ({"rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}}, "only 1.0 is"),
        ({"rope_parameters": 1e6}, "rope_parameters=1000000.0 must be an object"),
        ({"rope_scaling": ["linear", 2]}, "rope_scaling=.* must be an object"),
    ],
)
def test_what_would_be_another_model_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        rope_from_hf(fields)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        ({"rope_scaling": YARN}, YarnScaling(factor=4.0, original_max_position=32768)),
        (  # Qwen3's recipe: the limit stays as it was
            {"rope_parameters": {"full_attention": YARN}, "max_position_embeddings": 40960},
            YarnScaling(factor=4.0, original_max_position=32768),
        ),
        (  # Qwen2.5's: the original length is the limit
            {"rope_scaling": {"type": "yarn", "factor": 4.0}, "max_position_embeddings": 32768},
            YarnScaling(factor=4.0, original_max_position=32768),
        ),
        (  # the factor is the ratio of the two lengths
            {"rope_scaling": YARN | {"factor": None}, "max_position_embeddings": 65536},
            YarnScaling(factor=2.0, original_max_position=32768),
        ),
        (
            {
                "rope_parameters": YARN
                | {"attention_factor": 1.2, "beta_fast": 16, "truncate": False}
            },
            YarnScaling(
                factor=4.0,
                original_max_position=32768,
                attention_factor=1.2,
                beta_fast=16.0,
                truncates=False,
            ),
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2}}, LinearScaling(factor=2.0)),
    ],
)
def test_scalings_are_read_and_written_as_transformers_does(fields, scaling):
    assert rope_from_hf(fields) == (10_000.0, scaling)
    assert rope_from_hf({"rope_scaling": rope_to_hf(scaling)})[1] == scaling


def test_two_mscales_give_their_ratio():
    # ln 4 = 1.3862944: (0.1 · 1.3862944 + 1) / (0.05 · 1.3862944 + 1) = 1.1386294 / 1.0693147
    fields = YARN | {"mscale": 1.0, "mscale_all_dim": 0.5}
    _, scaling = rope_from_hf({"rope_scaling": fields})
    assert isinstance(scaling, YarnScaling)
    assert scaling.attention_factor == pytest.approx(1.0648216, rel=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"original_max_position_embeddings": 8.5}, "=8.5 must be a positive integer"),
        (
            {"original_max_position_embeddings": 65536},
            "=65536 is larger than max_position_emb.*=40960",
        ),
        ({"factor": 0.5}, "rope_scaling.factor=0.5 must be 1 or more"),
        ({"factor": None, "original_max_position_embeddings": 40960}, "yarn needs 'factor'"),
        ({"beta_fast": 1}, "beta_fast=1 must be larger than beta_slow=1"),
        ({"beta_slow": "1"}, "beta_slow='1' must be a positive number"),
        ({"truncate": 1}, "truncate=1 must be true or false"),
        ({"attention_factor": 0}, "attention_factor=0 must be a positive number"),
        ({"mscale": 1.0}, r"\['mscale'\] without the other"),
        (
            {"mscale": 1.0, "mscale_all_dim": 1.0, "attention_factor": 1.1},
            "attention_factor=1.1 is not what .*mscale=1.0.* give, 1: take",
        ),
        ({"short_factor": [1.0]}, r"short_factor=\[1.0\] are not known for rope_type 'yarn'"),
    ],
)
def test_a_yarn_that_does_not_fit_is_refused_by_key_and_value(more, message):
    fields = {"rope_scaling": YARN | more, "max_position_embeddings": 40960}
    with pytest.raises(ValueError, match=message):
        rope_from_hf(fields)


def test_dynamic_rope_is_refused_with_both_ways_on():
    scaling = {"type": "dynamic", "factor": 4.0}
    fields = {"rope_theta": 1e6, "rope_scaling": scaling, "max_position_embeddings": 40960}
    with pytest.raises(
        ValueError, match=r"use rope_type 'yarn' with factor=4.0 and orig.*=40960"
    ) as e:
        rope_from_hf(fields)
    assert "\n" not in str(e.value)
    ignored = ("rope_scaling.type", "rope_scaling.factor")
    assert f"ignored_fields = ({', '.join(map(repr, ignored))},)" in str(e.value)
    assert rope_from_hf(fields, ignored) == (1e6, None)


def test_a_key_known_to_change_nothing_can_be_named():
    fields = {"rope_parameters": {"rope_theta": 1e6, "beta_fast": 32}}
    with pytest.raises(ValueError, match=r"rope_parameters.beta_fast=32 .* in ignored_fields"):
        rope_from_hf(fields)
    assert rope_from_hf(fields, ("rope_parameters.beta_fast",)) == (1e6, None)
