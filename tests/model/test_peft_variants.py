"""Adapters of PEFT's variants: merged right, or refused with file, field and value."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, full_logits, random_adapter, random_params, random_tokens
from safetensors.numpy import load_file, save_file

from jaxtool.model.hf_weights import load_hf, save_hf
from jaxtool.model.lora import LoraConfig
from jaxtool.model.peft import load_peft, save_peft
from jaxtool.model.weight_layout import leaves
from jaxtool.parallel.axis_rules import single_device

MODEL = FAMILIES["qwen2"]
LORA = LoraConfig(rank=4, alpha=8.0)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def written(tmp_path):
    save_peft(tmp_path, random_adapter(MODEL, LORA), LORA, base_model=None)
    return tmp_path


def change(folder, **fields):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refuses(folder, message, **fields):
    change(folder, **fields)
    with pytest.raises(ValueError, match=message) as error:
        load_peft(folder, MODEL)
    assert str(error.value).startswith(repr(str(folder))[:-1])


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_as_it_is_are_merged(written, init):
    change(written, init_lora_weights=init)
    assert load_peft(written, MODEL).scale == 2.0


@pytest.mark.parametrize(
    "init",
    ["pissa", "pissa_niter_16", "PiSSA", "olora", "corda", "lora_ga", "loftq", "new", None, 1, []],
    ids=repr,
)
def test_initialisations_that_change_the_base_are_refused(written, init):
    message = rf"init_lora_weights={init!r} is not supported".replace("[", r"\[")
    refuses(written, message + ".*path_initial_model_for_weight_conversion", init_lora_weights=init)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peft_type", "ADALORA"),
        ("use_rslora", True),
        ("use_dora", True),
        ("fan_in_fan_out", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"model.layers.0.self_attn.q_proj": 16}),
        ("modules_to_save", ["embed_tokens"]),
        ("trainable_token_indices", [1, 2]),
        ("target_parameters", ["mlp.experts.up"]),
        ("layers_to_transform", 0),
        ("layers_to_transform", [0, 1]),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [1]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1.0}),
        ("a_variant_of_next_year", {"strength": 2}),
    ],
)
def test_a_variant_is_refused_by_field_and_value(written, name, value):
    change(written, **{name: value})
    with pytest.raises(ValueError, match="merge_and_unload") as error:
        load_peft(written, MODEL)
    assert f"adapter_config.json': {name}={value!r} is not supported" in str(error.value)


def test_fields_that_change_nothing_or_are_off_pass(written):
    off = {"use_qalora": False, "trainable_token_indices": None, "loftq_config": {}, "new": None}
    neutral = {"qalora_group_size": 16, "megatron_core": "megatron.core", "peft_version": "0.21.2"}
    change(written, **off, **neutral, eva_config={"rho": 2.0}, lora_dropout=0.1, revision="main")
    assert load_peft(written, MODEL).scale == 2.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_modules": r".*\.(q_proj|v_proj)"}, "must be a list of some of q_proj"),
        ({"target_modules": "all-linear"}, "target_modules='all-linear' must be a list"),
        ({"target_modules": None}, "target_modules=None must be a list"),
        ({"target_modules": []}, "must be a list"),
        ({"target_modules": ["model.layers.0.self_attn.q_proj"]}, "must be a list"),
        ({"target_modules": ["lm_head"]}, r"target_modules=\['lm_head'\] must be a list"),
        ({"r": 0}, "r=0 must be an integer above 0"),
        ({"r": "4"}, "r='4' must be an integer"),
        ({"r": True}, "r=True must be an integer"),
        ({"r": 4.0}, "r=4.0 must be an integer"),
        ({"lora_alpha": None}, "lora_alpha=None must be a number above 0"),
        ({"lora_alpha": -1}, "lora_alpha=-1 must be a number above 0"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan must be a number above 0"),
        ({"lora_alpha": float("inf")}, "lora_alpha=inf must be a number above 0"),
    ],
)
def test_values_that_are_none_are_refused(written, fields, message):
    refuses(written, rf"adapter_config.json': .*{message}", **fields)


def test_tensors_of_other_variants_and_damaged_ones_are_refused(written):
    tensors = load_file(written / WEIGHTS)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    magnitude = name.replace("lora_A.weight", "lora_magnitude_vector")
    for change_of, message in [
        ({magnitude: tensors[name][0].copy()}, f"tensor '{magnitude}' has shape .* None"),
        ({name: np.full_like(tensors[name], np.nan)}, f"tensor '{name}' has NaN or infinite"),
        ({name: tensors[name].astype(np.int8)}, f"tensor '{name}' has dtype I8"),
    ]:
        save_file(tensors | change_of, written / WEIGHTS)
        refuses(written, rf"{WEIGHTS}': .*{message}")
    half = {key: x.astype(np.float16) for key, x in tensors.items()}
    save_file(half, written / WEIGHTS)
    assert load_peft(written, MODEL).tensors[name].dtype == np.float16


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"{", "is cut short"),
        (b'{"r": 4', "is cut short"),
    ],
)
def test_broken_files_are_named(written, name, content, message):
    (written / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}' .*{message}"):
        load_peft(written, MODEL)


@pytest.mark.parity
@pytest.mark.skipif(
    importlib.util.find_spec("peft") is None or importlib.util.find_spec("torch") is None,
    reason="PEFT and torch are not installed: pip install -e '.[parity]'",
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("init", ["pissa", "orthogonal"])
def test_a_converted_adapter_gives_pefts_logits_and_a_raw_one_is_refused(tmp_path, init):
    """PEFT takes the first A B out of the base for PiSSA; orthogonal leaves the base."""
    import peft
    import torch
    import transformers

    folder, start, plain = (str(tmp_path / name) for name in ("base", "start", "plain"))
    carried = {"max_position_embeddings": 64}
    save_hf(folder, MODEL, random_params(MODEL), carried=carried, dtype="float32")
    torch.manual_seed(0)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    modules = ["q_proj", "down_proj"]
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=modules, init_lora_weights=init)
    adapted = peft.get_peft_model(base, config)
    ours = adapted.peft_config["default"]
    ours.init_lora_weights = True  # as PEFT's documentation saves the start
    adapted.save_pretrained(start)
    ours.init_lora_weights = init
    with torch.no_grad():
        for name, x in adapted.named_parameters():
            if "lora_" in name:
                x += 0.3 * torch.randn_like(x)
    tokens = random_tokens(2, 9)
    with torch.no_grad(), adapted.disable_adapter():
        without = adapted(torch.tensor(np.asarray(tokens))).logits.numpy()
    with torch.no_grad():
        wanted = adapted(torch.tensor(np.asarray(tokens))).logits.numpy()
    assert np.abs(wanted - without).max() > 0.1
    adapted.save_pretrained(tmp_path / "raw")
    if init == "orthogonal":
        plain = str(tmp_path / "raw")
    else:
        with pytest.raises(ValueError, match=f"init_lora_weights='{init}' is not supported"):
            load_peft(tmp_path / "raw", MODEL)
        adapted.save_pretrained(plain, path_initial_model_for_weight_conversion=start)
    np.testing.assert_allclose(merged_logits(folder, plain, tokens), wanted, rtol=1e-4, atol=1e-4)


def merged_logits(folder, adapter_folder, tokens):
    """Of the Hugging Face directory with the adapter merged in as convert_weights merges it."""
    config, params = load_hf(folder, sharding=single_device())
    config = dataclasses.replace(config, compute_dtype="float32")
    read = load_peft(Path(adapter_folder), config)
    for leaf in leaves(config):
        branch, parts = params, leaf.name.split("/")
        for part in parts[:-1]:
            branch = branch[part]
        x = np.asarray(branch[parts[-1]])
        if leaf.num_layers is None:
            continue
        layers = [read.added_to(leaf, layer, x[layer]) for layer in leaf.layers()]
        branch[parts[-1]] = jnp.asarray(np.stack(layers))
    return np.asarray(full_logits(params, config, tokens, single_device()))
