"""Adapters in PEFT's files: adapter_config.json and adapter_model.safetensors, without torch.

Written: what `PeftModel.from_pretrained` of PEFT 0.21 loads alongside the Hugging Face model that was adapted.
Read, to merge it into a model: plain LoRA on the seven matrices of a block, also from elsewhere. Not
covered, and refused by name: rsLoRA, DoRA, biases, ranks by layer, modules saved whole, and adapters
whose initialisation takes a part out of the base weights (PiSSA and its like), since A B alone is not
what they add.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtool.core.bucket_names import check_local
from jaxtool.core.local_files import read_json_object
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import MODULES, LoraConfig, Target, adapter_shapes
from jaxtool.model.param_axes import path_name
from jaxtool.model.safetensors_file import check_is_float, open_safetensors, save_tensors
from jaxtool.model.weight_layout import LAYOUTS, Leaf, check_finite

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HALVES = {"lora_a": "lora_A", "lora_b": "lora_B"}
# Fields whose other values change what the tensors mean. Any field that is not named here or below must
# be off (false, null or empty): PEFT adds one for every variant.
_PLAIN: Mapping[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
    "layers_to_transform": None,
    "layer_replication": None,
}
_USED = ("r", "lora_alpha", "target_modules", "init_lora_weights")
# Say where an adapter comes from, or act in training alone, or name modules of which there are tensors.
_NEUTRAL = (
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "exclude_modules",
    "layers_pattern",
    "megatron_config",
    "megatron_core",
    "qalora_group_size",
    "ensure_weight_tying",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
)
# Initialisations that leave the base weights as they are: what is added to them is A B.
_INITS = (True, False, "gaussian", "eva", "orthogonal", "mica")


def save_peft(
    directory: Path, adapter: Mapping[str, Any], config: LoraConfig, *, base_model: str | None
) -> None:
    """Writes an adapter, float32.

    Args:
      adapter: the tree of `lora.init_adapter` on the host, stacked layers.
      base_model: name or directory of the Hugging Face model that it belongs to.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, stack in jax.tree_util.tree_leaves_with_path(adapter):
        module, half = path_name(path).rsplit("/", 1)
        for layer, x in enumerate(np.asarray(stack, np.float32)):
            # A [*in, r] and B [r, *out]; PEFT's are the weights of two linear layers, [out, in].
            flat = x.reshape(-1, config.rank) if half == "lora_a" else x.reshape(config.rank, -1)
            tensors[_tensor_name(module, layer, half)] = np.ascontiguousarray(flat.T)
    fields = {
        **_PLAIN,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": [_hf_module(target) for target in config.targets],
        "inference_mode": True,
    }
    check_local(directory, "the directory")
    directory.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, directory / _WEIGHTS)
    text = json.dumps(fields, indent=2) + "\n"
    (directory / _CONFIG).write_text(text, encoding="utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """Tensors of an adapter as they are in the file."""

    scale: float  # α / r
    tensors: Mapping[str, np.ndarray]

    def added_to(self, leaf: Leaf, layer: int | None, x: np.ndarray) -> np.ndarray:
        """W + scale · A B float32 for one parameter of one layer; `x` itself where it is not adapted.

        Args:
          x: W in our shape [*in, *out].
        """
        names = [_tensor_name(leaf.name.removesuffix("/kernel"), layer, half) for half in _HALVES]
        if names[0] not in self.tensors:
            return x
        a, b = (self.tensors[name].astype(np.float32) for name in names)
        return x.astype(np.float32) + self.scale * (b @ a).T.reshape(x.shape)


def load_peft(directory: Path, model: ModelConfig) -> PeftAdapter:
    """Reads and checks an adapter for a model.

    Raises:
      FileNotFoundError: no adapter there.
      ValueError: a feature that is not covered, a tensor that is missing, has another shape, or is one
        the model has no place for; each by name.
    """
    for name in (_CONFIG, _WEIGHTS):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"no {name} in {str(directory)!r}: give a PEFT adapter")
    file = directory / _CONFIG
    fields = read_json_object(file)
    _check_plain(fields, file)
    _check_init(fields.get("init_lora_weights", True), file)
    rank, alpha = (_number(fields, name, file) for name in ("r", "lora_alpha"))
    config = LoraConfig(rank=int(rank), alpha=alpha, targets=_targets(fields, file))
    tensors = _read_tensors(directory / _WEIGHTS, _file_shapes(model, config))
    return PeftAdapter(scale=config.scale, tensors=tensors)


def _check_plain(fields: Mapping[str, Any], file: Path) -> None:
    for name, value in fields.items():
        if name in _USED or name in _NEUTRAL:
            continue
        # PEFT leaves a pattern out, or writes it as null or {}; layers_to_transform = 0 is a layer.
        is_off = value is None or value in ([], {}) or (name not in _PLAIN and not value)
        if not is_off and not (name in _PLAIN and value == _PLAIN[name]):
            raise ValueError(
                f"{str(file)!r}: {name}={value!r} is not supported, only {_PLAIN.get(name)!r}: "
                "merge the adapter with PEFT (merge_and_unload) and convert the result"
            )


def _check_init(init: Any, file: Path) -> None:
    # 1 and 0 equal True and False.
    if not isinstance(init, bool | str) or init not in _INITS:
        raise ValueError(
            f"{str(file)!r}: init_lora_weights={init!r} is not supported, only {_INITS}: other "
            "initialisations change the base weights, so that A B added to the plain ones is wrong; "
            "save the adapter by save_pretrained(path_initial_model_for_weight_conversion=...), which "
            "makes it a plain one"
        )


def _number(fields: Mapping[str, Any], name: str, file: Path) -> float:
    value: Any = fields.get(name)
    kinds = (int,) if name == "r" else (int, float)
    if type(value) not in kinds or not 0 < value < math.inf:
        kind = "an integer" if name == "r" else "a number"
        raise ValueError(f"{str(file)!r}: {name}={value!r} must be {kind} above 0")
    return float(value)


def _read_tensors(file: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Of these names and shapes exactly; each is finite."""
    tensors: dict[str, np.ndarray] = {}
    with open_safetensors(file) as opened:
        names = list(opened.keys())
        found = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"{str(file)!r}: adapter tensor {name!r} has shape {found.get(name)}, the model and "
                    f"{_CONFIG} ask for {expected.get(name)}: this adapter is of another model"
                )
            check_is_float(opened.get_slice(name).get_dtype(), name, file)
            tensors[name] = opened.get_tensor(name)
            check_finite(tensors[name], name, file)
    return tensors


def _targets(fields: Mapping[str, Any], file: Path) -> tuple[Target, ...]:
    modules = fields.get("target_modules")
    names = [_hf_module(target) for target in MODULES]
    if not isinstance(modules, list) or not modules or not all(x in names for x in modules):
        raise ValueError(
            f"{str(file)!r}: target_modules={modules!r} must be a list of some of {', '.join(names)}"
        )
    return tuple(target for target in MODULES if _hf_module(target) in modules)


def _file_shapes(model: ModelConfig, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(adapter_shapes(model, config)):
        module, half = path_name(path).rsplit("/", 1)
        size = int(np.prod(x.shape[1:])) // config.rank
        shape = (config.rank, size) if half == "lora_a" else (size, config.rank)
        for layer in range(model.num_layers):
            shapes[_tensor_name(module, layer, half)] = shape
    return shapes


def _tensor_name(module: str, layer: int | None, half: str) -> str:
    """`base_model.model.` and the name of the linear layer that Hugging Face gives the kernel."""
    layout = LAYOUTS.get(f"{module}/kernel")
    linear = module if layout is None else layout.hf.format(layer=layer).removesuffix(".weight")
    return f"base_model.model.{linear}.{_HALVES[half]}.weight"


def _hf_module(target: Target) -> str:
    """`q_proj` for "q"."""
    kernel = "/".join(("layers", *MODULES[target], "kernel"))
    return LAYOUTS[kernel].hf.removesuffix(".weight").rsplit(".", 1)[-1]
