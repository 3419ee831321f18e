"""Adapters in PEFT's files: names, shapes and values by hand; PEFT itself where it is installed."""

import dataclasses
import importlib.util
import json

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import (
    FAMILIES,
    full_logits,
    random_adapter,
    random_params,
    random_tokens,
)
from safetensors.numpy import load_file, save_file

from jaxtool.model.hf_weights import save_hf
from jaxtool.model.lora import FrozenPolicy, LoraConfig, merged
from jaxtool.model.peft import load_peft, save_peft
from jaxtool.model.weight_layout import leaves
from jaxtool.parallel.axis_rules import single_device

MODEL = FAMILIES["qwen3"]  # heads x width differs from the width of the model
LORA = LoraConfig(rank=3, alpha=6.0)
PREFIX = "base_model.model.model.layers.1."


@pytest.fixture
def adapter():
    return random_adapter(MODEL, LORA)


def test_names_shapes_and_values_by_hand(tmp_path, adapter):
    save_peft(tmp_path, adapter, LORA, base_model="Qwen/Qwen3-8B")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * MODEL.num_layers
    q, o = (adapter["layers"]["attention"][name] for name in ("query", "output"))
    down = adapter["layers"]["mlp"]["down"]
    # A is [r, in] and B [out, r]; heads are flattened as the projections of transformers flatten them.
    for name, wanted in {
        "self_attn.q_proj.lora_A": np.asarray(q["lora_a"][1]).T,
        "self_attn.q_proj.lora_B": np.asarray(q["lora_b"][1]).reshape(3, 48).T,
        "self_attn.o_proj.lora_A": np.asarray(o["lora_a"][1]).reshape(48, 3).T,
        "self_attn.o_proj.lora_B": np.asarray(o["lora_b"][1]).T,
        "mlp.down_proj.lora_A": np.asarray(down["lora_a"][1]).T,
    }.items():
        np.testing.assert_array_equal(tensors[f"{PREFIX}{name}.weight"], wanted)
    fields = json.loads((tmp_path / "adapter_config.json").read_text())
    assert fields["peft_type"] == "LORA"
    assert (fields["r"], fields["lora_alpha"], fields["bias"]) == (3, 6.0, "none")
    assert fields["base_model_name_or_path"] == "Qwen/Qwen3-8B"
    assert fields["target_modules"] == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    ]  # fmt: skip


def test_what_is_read_merges_to_the_policy(tmp_path, adapter):
    save_peft(tmp_path, adapter, LORA, base_model=None)
    read = load_peft(tmp_path, MODEL)
    base = FrozenPolicy(params=random_params(MODEL), config=LORA)
    wanted = merged(base.with_adapter(adapter), single_device())

    def at(tree, name):
        for part in name.split("/"):
            tree = tree[part]
        return np.asarray(tree)

    num_adapted = 0
    for leaf in leaves(MODEL):
        for layer in leaf.layers():
            before, after = (at(tree, leaf.name) for tree in (base.params, wanted))
            if layer is not None:
                before, after = before[layer], after[layer]
            got = read.added_to(leaf, layer, before)
            np.testing.assert_allclose(got, after, rtol=1e-5, atol=1e-6)
            num_adapted += got is not before
    assert num_adapted == 7 * MODEL.num_layers


def test_what_is_not_covered_is_refused_by_name(tmp_path, adapter):
    def refuses(error, message, **fields):
        file.write_text(json.dumps(plain | fields))
        with pytest.raises(error, match=message):
            load_peft(tmp_path, MODEL)

    with pytest.raises(FileNotFoundError, match=r"no adapter_config.json in .*give a PEFT adapter"):
        load_peft(tmp_path, MODEL)
    save_peft(tmp_path, adapter, LORA, base_model=None)
    file, weights = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    plain = json.loads(file.read_text())
    refuses(ValueError, "use_rslora=True is not supported, only False", use_rslora=True)
    refuses(ValueError, "bias='all' is not supported", bias="all")
    refuses(ValueError, r"modules_to_save=\['lm_head'\]", modules_to_save=["lm_head"])
    refuses(ValueError, "target_modules='all-linear' must be a list", target_modules="all-linear")
    refuses(ValueError, "must be a list of some of q_proj, k_proj", target_modules=["embed_tokens"])
    refuses(
        ValueError,
        r"down_proj.lora_A.weight' has shape \(3, 64\), .*None",
        target_modules=["o_proj"],
    )
    refuses(ValueError, r"has shape \(3, 64\), .* ask for \(4, 64\)", r=4)
    tensors = load_file(weights)
    save_file({name: x for name, x in tensors.items() if "layers.1.mlp.up" not in name}, weights)
    refuses(ValueError, r"layers.1.mlp.up_proj.lora_A.weight' has shape None, .*\(3, 32\)")


@pytest.mark.parity
@pytest.mark.skipif(
    importlib.util.find_spec("peft") is None or importlib.util.find_spec("torch") is None,
    reason="PEFT and torch are not installed: pip install -e '.[parity]'",
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT 0.21 on transformers 5
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_peft_gives_the_same_logits(tmp_path, family):
    import peft
    import torch
    import transformers

    model = FAMILIES[family]
    lora = dataclasses.replace(LORA, targets=("q", "v", "o", "down"))
    base = FrozenPolicy(params=random_params(model), config=lora)
    adapter = random_adapter(model, lora)
    carried = {"max_position_embeddings": 64}
    save_hf(tmp_path / "base", model, base.params, carried=carried, dtype="float32")
    save_peft(tmp_path / "adapter", adapter, lora, base_model=str(tmp_path / "base"))
    tokens = random_tokens(2, 9)
    wanted = full_logits(base.with_adapter(adapter), model, tokens, single_device())
    plain = full_logits(base.params, model, tokens, single_device())
    assert float(jnp.max(jnp.abs(wanted - plain))) > 0.1
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    with torch.no_grad():
        got = adapted(torch.tensor(np.asarray(tokens))).logits.numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    peft_again = tmp_path / "again"
    adapted.save_pretrained(peft_again)
    ours, again = (load_peft(folder, model) for folder in (tmp_path / "adapter", peft_again))
    assert ours.scale == again.scale
    for name, x in ours.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], x)
