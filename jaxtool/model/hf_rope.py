"""RoPE as config.json writes it, in the spellings of transformers 4 and 5.

Version 4 has rope_theta and rope_scaling, version 5 rope_parameters, which may have an entry for each
type of layer. Covered: default, linear, llama3 and yarn. A key that is not understood is refused: without
it the model is another one.

Dynamic NTK is refused. It recomputes all frequencies from the length that a row has now, and keys in a
cache are rotated already: the token of a decoder and that of one pass over the row come from two models.
transformers decodes so, with keys of earlier lengths. Up to max_position_embeddings it is plain RoPE.
"""

import math
from collections.abc import Mapping
from typing import Any

from jaxtool.model.config import LinearScaling, RopeScaling, Scaling, YarnScaling
from jaxtool.model.rope import yarn_mscale

_NEW, _OLD = "rope_parameters", "rope_scaling"
_DEFAULT_THETA = 10_000.0  # of transformers, where a config.json names none
_LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_max_position",
}
_LENGTH, _LIMIT = "original_max_position_embeddings", "max_position_embeddings"
_YARN_BORDERS = ("beta_fast", "beta_slow")
_MSCALES = ("mscale", "mscale_all_dim")
_YARN = {"factor", _LENGTH, "attention_factor", "truncate", *_YARN_BORDERS, *_MSCALES}


def rope_from_hf(
    fields: Mapping[str, Any], ignored_fields: tuple[str, ...] = ()
) -> tuple[float, Scaling | None]:
    """θ and scaling of a parsed config.json.

    Args:
      ignored_fields: "rope_parameters.beta_fast" ignores that key.

    Raises:
      ValueError: a key or value that is not supported, or two that disagree; with key and value.
    """
    name, rope = _parameters(fields)
    rope = {key: x for key, x in rope.items() if f"{name}.{key}" not in ignored_fields}
    keys = [key for key in rope if key != "rope_theta"]
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
    if kind == "linear":
        return base, _linear(name, rope)
    if kind == "llama3":
        return base, _llama3(name, rope)
    if kind == "yarn":
        return base, _yarn(name, rope, fields)
    if kind == "dynamic":
        raise ValueError(_no_dynamic(name, keys, rope.get("factor"), fields.get(_LIMIT, _LIMIT)))
    raise ValueError(
        f"config field {name}: rope_type {kind!r} is not supported: use 'default', 'linear', 'llama3' "
        "or 'yarn'"
    )


def rope_to_hf(scaling: Scaling) -> dict[str, Any]:
    """rope_scaling of a config.json, in the spelling of transformers 4, which version 5, vLLM and SGLang read."""
    if isinstance(scaling, RopeScaling):
        return {"rope_type": "llama3", **{key: getattr(scaling, x) for key, x in _LLAMA3.items()}}
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    # Defaults are left out: not every server reads the other keys.
    options = {
        "attention_factor": scaling.attention_factor,
        "beta_fast": scaling.beta_fast if scaling.beta_fast != 32.0 else None,
        "beta_slow": scaling.beta_slow if scaling.beta_slow != 1.0 else None,
        "truncate": None if scaling.truncates else False,
    }
    return {
        "rope_type": "yarn",
        "factor": scaling.factor,
        _LENGTH: scaling.original_max_position,
        **{key: x for key, x in options.items() if x is not None},
    }


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


def _linear(name: str, rope: Mapping[str, Any]) -> LinearScaling:
    if set(rope) != {"factor"}:
        raise ValueError(
            f"config field {name}: rope scaling linear needs exactly ['factor'], got {sorted(rope)}"
        )
    return LinearScaling(factor=_factor(name, rope["factor"]))


def _yarn(name: str, rope: Mapping[str, Any], fields: Mapping[str, Any]) -> YarnScaling:
    """Missing numbers are those of transformers: lengths from max_position_embeddings, borders 32 and 1."""
    if unknown := {key: x for key, x in rope.items() if key not in _YARN}:
        raise ValueError(
            f"config fields {_listed(name, unknown)} are not known for rope_type 'yarn': if they "
            "change nothing, name them so in ignored_fields"
        )
    limit = fields.get(_LIMIT)
    length = _length(f"{name}.{_LENGTH}", rope.get(_LENGTH, limit))
    if limit is not None and length > _length(_LIMIT, limit):
        raise ValueError(
            f"config field {name}.{_LENGTH}={length} is larger than {_LIMIT}={limit}: one of them is wrong"
        )
    factor = rope.get("factor")
    if factor is None:
        if limit is None or limit == length:
            raise ValueError(
                f"config field {name}: rope scaling yarn needs 'factor', got {sorted(rope)}"
            )
        factor = limit / length
    factor = _factor(name, factor)
    borders = {key: _positive(f"{name}.{key}", rope[key]) for key in _YARN_BORDERS if key in rope}
    if borders.get("beta_fast", 32.0) <= borders.get("beta_slow", 1.0):
        raise ValueError(
            f"config field {name}: beta_fast={rope.get('beta_fast', 32)!r} must be larger than "
            f"beta_slow={rope.get('beta_slow', 1)!r}"
        )
    truncates = rope.get("truncate", True)
    if not isinstance(truncates, bool):
        raise ValueError(f"config field {name}.truncate={truncates!r} must be true or false")
    return YarnScaling(
        factor=factor,
        original_max_position=length,
        attention_factor=_attention_factor(name, rope, factor),
        **borders,
        truncates=truncates,
    )


def _attention_factor(name: str, rope: Mapping[str, Any], factor: float) -> float | None:
    """Given, or the ratio of DeepSeek's two mscales; None: YaRN's own."""
    given = rope.get("attention_factor")
    if given is not None:
        given = _positive(f"{name}.attention_factor", given)
    found = {key: _positive(f"{name}.{key}", rope[key]) for key in _MSCALES if key in rope}
    if not found:
        return given
    if len(found) < len(_MSCALES):
        raise ValueError(
            f"config field {name} has {sorted(found)} without the other of {list(_MSCALES)}: alone it "
            "changes nothing, take it out"
        )
    ratio = yarn_mscale(factor, found["mscale"]) / yarn_mscale(factor, found["mscale_all_dim"])
    if given is not None and not math.isclose(given, ratio, rel_tol=1e-6):
        raise ValueError(
            f"config field {name}.attention_factor={given!r} is not what {_listed(name, found)} give, "
            f"{ratio:.6g}: take the wrong one out"
        )
    return ratio if given is None else given


def _no_dynamic(name: str, keys: list[str], factor: Any, limit: Any) -> str:
    """Why, and the two ways on."""
    ignored = ", ".join(repr(f"{name}.{key}") for key in keys)
    return (
        f"config field {name}: rope_type 'dynamic' is not supported: a longer row rotates all keys anew, and "
        f"those in the cache stay as they are. For rows of more than {limit} tokens use rope_type 'yarn' with "
        f"factor={factor!r} and {_LENGTH}={limit}; up to {limit} it is plain RoPE, with "
        f"ignored_fields = ({ignored},)"
    )


def _length(name: str, value: Any) -> int:
    """In tokens."""
    if type(value) is not int or value < 1:
        raise ValueError(f"config field {name}={value!r} must be a positive integer")
    return value


def _factor(name: str, value: Any) -> float:
    if _positive(f"{name}.factor", value) < 1:
        raise ValueError(f"config field {name}.factor={value!r} must be 1 or more")
    return float(value)


def _positive(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise ValueError(f"config field {name}={value!r} must be a positive number")
    return float(value)


def _listed(name: str, fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}.{key}={value!r}" for key, value in fields.items())
