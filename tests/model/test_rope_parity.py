"""Frequencies and attention factors are those of transformers' own functions, from the same config.json."""

from typing import Any

import pytest

from jaxtool.model.hf_rope import rope_from_hf
from jaxtool.model.rope import attention_factor, rotary_frequencies

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[parity]'")

import numpy as np  # noqa: E402
from transformers import Qwen3Config  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

pytestmark = pytest.mark.parity

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": YARN,
    "yarn_of_the_limit": {"rope_type": "yarn", "factor": 4.0},
    "yarn_without_factor": YARN | {"factor": None},
    "yarn_attention_factor": YARN | {"attention_factor": 1.25},
    "yarn_mscales": YARN | {"mscale": 1.0, "mscale_all_dim": 0.707},
    "yarn_borders": YARN | {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    "yarn_short": YARN | {"original_max_position_embeddings": 64},
}


@pytest.mark.parametrize("spelling", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", CASES)
def test_frequencies_of_transformers(name, spelling):
    fields = {"max_position_embeddings": 40960, spelling: CASES[name]}
    if spelling == "rope_scaling":
        fields["rope_theta"] = 1e6
    else:
        fields[spelling] = CASES[name] | {"rope_theta": 1e6}
    theta, scaling = rope_from_hf(fields)
    parameters: dict[str, Any] = dict(CASES[name]) | {"rope_theta": 1e6}
    config = Qwen3Config(head_dim=128, max_position_embeddings=40960, rope_parameters=parameters)
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    np.testing.assert_allclose(rotary_frequencies(128, theta, scaling), expected.numpy(), rtol=1e-5)
    assert attention_factor(scaling) == pytest.approx(factor, rel=1e-6)
    assert rotary_frequencies(128, theta, None)[-1] > 1.2 * float(expected[-1])  # it shows


def test_what_dynamic_rope_would_be():
    """Up to max_position_embeddings plain; beyond it every length has frequencies of its own."""
    parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e6}
    config = Qwen3Config(head_dim=128, max_position_embeddings=40960, rope_parameters=parameters)
    dynamic = ROPE_INIT_FUNCTIONS["dynamic"]
    within, at_60k, at_80k = (dynamic(config, seq_len=n)[0].numpy() for n in (4096, 61440, 81920))
    np.testing.assert_allclose(within, rotary_frequencies(128, 1e6, None), rtol=1e-5)
    assert np.all(at_80k[1:] < 0.999 * at_60k[1:])
