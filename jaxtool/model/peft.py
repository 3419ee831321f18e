"""Adapters in PEFT's files: adapter_config.json and adapter_model.safetensors, without torch.

Written: what `PeftModel.from_pretrained` of PEFT 0.21 loads alongside the Hugging Face model that was adapted.
Read, to merge it into a model: plain LoRA on the seven matrices of a block, also from elsewhere. Not
covered: rsLoRA, DoRA, biases, ranks by layer, modules saved whole; each is refused by name.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxtool.core.files import give_usual_mode
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import MODULES, LoraConfig, Target, adapter_shapes
from jaxtool.model.param_axes import path_name
from jaxtool.model.weight_layout import LAYOUTS, Leaf

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HALVES = {"lora_a": "lora_A", "lora_b": "lora_B"}
# Fields whose other values change what the tensors mean.
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
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / _WEIGHTS, metadata={"format": "pt"})
    give_usual_mode(directory / _WEIGHTS)
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
    fields = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
    for name, plain in _PLAIN.items():
        # PEFT leaves a pattern out, or writes it as null or {}.
        if (fields.get(name, plain) or None) != (plain or None):
            raise ValueError(
                f"{directory / _CONFIG}: {name}={fields[name]!r} is not supported, only {plain!r}"
            )
    targets = _targets(fields["target_modules"], directory / _CONFIG)
    config = LoraConfig(rank=fields["r"], alpha=fields["lora_alpha"], targets=targets)
    tensors = load_file(directory / _WEIGHTS)
    expected = _file_shapes(model, config)
    for name in sorted(expected.keys() | tensors.keys()):
        found = tensors[name].shape if name in tensors else None
        if found != expected.get(name):
            raise ValueError(
                f"adapter tensor {name!r} has shape {found}, the model and {_CONFIG} ask for "
                f"{expected.get(name)}: this adapter is of another model"
            )
    return PeftAdapter(scale=config.scale, tensors=tensors)


def _targets(modules: Any, file: Path) -> tuple[Target, ...]:
    names = [_hf_module(target) for target in MODULES]
    if isinstance(modules, str) or not all(module in names for module in modules):
        raise ValueError(
            f"{file}: target_modules={modules!r} must be a list of some of {', '.join(names)}"
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
