"""RoPE in config.json: every spelling of the same model, and nothing dropped in silence."""

import pytest

from jaxtool.model.config import RopeScaling
from jaxtool.model.hf_rope import rope_from_hf

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
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_type 'yarn'"),
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


def test_a_key_known_to_change_nothing_can_be_named():
    fields = {"rope_parameters": {"rope_theta": 1e6, "beta_fast": 32}}
    with pytest.raises(ValueError, match=r"rope_parameters.beta_fast=32 .* in ignored_fields"):
        rope_from_hf(fields)
    assert rope_from_hf(fields, ("rope_parameters.beta_fast",)) == (1e6, None)
