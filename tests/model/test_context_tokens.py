"""How long rows may be is said by the files; YaRN reaches further than the limit that it was made from."""

import json

import pytest
from helpers.tiny_files import write_gguf
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.model.context import context_tokens
from jaxtool.model.sources import GgufFile, HfDirectory

FIELDS = {
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40960,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 40960),
        ({"max_position_embeddings": None}, None),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 40960),
        ({"rope_scaling": YARN}, 131072),  # 4 · 32768
        ({"rope_scaling": YARN | {"factor": 1.0}}, 40960),
    ],
)
def test_a_config_json_says_how_far_positions_reach(tmp_path, more, tokens):
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | more))
    assert context_tokens(HfDirectory(path=str(tmp_path))) == tokens


def test_a_gguf_file_says_how_far_positions_reach(tmp_path):
    path, config = tmp_path / "model.gguf", FAMILIES["qwen3"]
    write_gguf(path, "qwen3", config, random_params(config))
    assert context_tokens(GgufFile(path=str(path))) == 128
    more = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
    fields = {f"rope.scaling.{name}": value for name, value in more.items()}
    write_gguf(path, "qwen3", config, random_params(config), more_fields=fields)
    assert context_tokens(GgufFile(path=str(path))) == 256
