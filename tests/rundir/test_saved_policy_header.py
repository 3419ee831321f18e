"""A saved policy's shapes are checked from its metadata."""

import json

import pytest

from jaxtool.model.config import ModelConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy

MODEL = ModelConfig(
    vocab_size=16, d_model=8, d_ff=16, num_layers=2, num_heads=2, num_kv_heads=2, head_dim=4
)


def test_the_header_of_another_model_is_refused(tmp_path):
    model, params = RandomInit(config=MODEL).load(Sharding(make_mesh(MeshConfig())), 0)
    policy = tmp_path / "policy"
    save_policy(policy, params, model)
    assert SavedPolicy(path=str(policy)).check_header().endswith(f"arrays in {policy}")
    file = policy / "model_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"d_ff": 24}))
    with pytest.raises(ValueError, match=r"another model than its model_config.json: .* 16.* 24"):
        SavedPolicy(path=str(policy)).check_header()
