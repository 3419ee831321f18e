"""RoPE as config.json writes it, in the spellings of transformers 4 and 5.

Version 4 has rope_theta and rope_scaling, version 5 rope_parameters, which may have an entry for each
type of layer. A key that is not understood is refused: without it the model is another one.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxtool.model.config import RopeScaling

_NEW, _OLD = "rope_parameters", "rope_scaling"
_DEFAULT_THETA = 10_000.0  # of transformers, where a config.json names none
_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_position",
}


def rope_from_hf(
    fields: Mapping[str, Any], ignored_fields: tuple[str, ...] = ()
) -> tuple[float, RopeScaling | None]:
    """θ and scaling of a parsed config.json.

    Args:
      ignored_fields: "rope_parameters.beta_fast" ignores that key.

    Raises:
      ValueError: a key or value that is not supported, or two that disagree; with key and value.
    """
    name, rope = _parameters(fields)
    rope = {key: x for key, x in rope.items() if f"{name}.{key}" not in ignored_fields}
    theta = _agreed({f"{name}.rope_theta": rope.pop("rope_theta", None)}, fields, "rope_theta")
    kinds = {f"{name}.rope_type": rope.pop("rope_type", None)}
    kind = _agreed(kinds, {f"{name}.type": rope.pop("type", None)}, f"{name}.type") or "default"
    part = rope.pop("partial_rotary_factor", 1.0)
    if part != 1.0:
        raise ValueError(
            f"config field {name}.partial_rotary_factor={part!r} is not supported: only 1.0 is"
        )
    base = _DEFAULT_THETA if theta is None else _positive("rope_theta", theta)
    if kind == "default":
        if rope:
            raise ValueError(
                f"config fields {_listed(name, rope)} are not known for rope_type 'default': if they "
                "change nothing, name them so in ignored_fields"
            )
        return base, None
    if kind != "llama3":
        raise ValueError(
            f"config field {name}: rope_type {kind!r} is not supported: use 'default' or 'llama3'"
        )
    return base, _llama3(name, rope)


def _parameters(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the field that holds them, and what it holds for layers of full attention."""
    found = {name: _flat(name, fields[name]) for name in (_NEW, _OLD) if fields.get(name)}
    if len(found) == 2 and found[_NEW] != found[_OLD]:
        raise ValueError(
            f"config fields {_NEW}={fields[_NEW]!r} and {_OLD}={fields[_OLD]!r} differ: "
            "take the wrong one out"
        )
    return next(iter(found.items()), (_NEW, {}))


def _flat(name: str, value: Any) -> dict[str, Any]:
    """{"full_attention": {...}} is what is inside; null keys are as good as absent."""
    if not isinstance(value, dict):
        raise ValueError(f"config field {name}={value!r} must be an object")
    value = {key: x for key, x in value.items() if x is not None}
    nested = [key for key, x in value.items() if isinstance(x, dict)]
    if not nested:
        return value
    other = sorted(value.keys() - {"full_attention"})
    if other:
        raise ValueError(
            f"config field {name} has entries for {other}: only 'full_attention' is supported, and "
            "nothing beside it"
        )
    return _flat(f"{name}.full_attention", value["full_attention"])


def _agreed(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> Any:
    """The value of two spellings, either of which may be missing; raises where they differ."""
    (first, x), y = next(iter(one.items())), other.get(name)
    if x is not None and y is not None and x != y:
        raise ValueError(
            f"config fields {first}={x!r} and {name}={y!r} differ: take the wrong one out"
        )
    return y if x is None else x


def _llama3(name: str, rope: Mapping[str, Any]) -> RopeScaling:
    if set(rope) != set(_LLAMA3):
        raise ValueError(
            f"config field {name}: rope scaling llama3 needs exactly {sorted(_LLAMA3)}, "
            f"got {sorted(rope)}"
        )
    values = {ours: _positive(f"{name}.{key}", rope[key]) for key, ours in _LLAMA3.items()}
    if values["low_freq_factor"] >= values["high_freq_factor"]:
        raise ValueError(
            f"config field {name}: low_freq_factor={rope['low_freq_factor']!r} must be less than "
            f"high_freq_factor={rope['high_freq_factor']!r}"
        )
    length = int(values.pop("original_max_position"))
    return RopeScaling(**values, original_max_position=length)


def _positive(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"config field {name}={value!r} must be a positive number")
    return float(value)


def _listed(name: str, fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}.{key}={value!r}" for key, value in fields.items())
