"""Values between the hosts of a run as bytes: JSON, and arrays as they lie in memory. No pickle.

Whoever reads such bytes builds data and runs nothing: None, bool, int, float, str, list, tuple, dict, paths, numpy
arrays and scalars, enums and dataclasses of jaxtool, and errors that a user can mend. Anything else is refused when it
is packed. Not covered: who sends what to whom (`host_network`).

Example: pack((1, np.int32([5, 6]))) is, with the length of its first line in front,
  {"tuple": [1, {"array": ["<i4", [2], 0]}]}
  and the eight bytes of the array, which begin at offset 0 of what follows.
"""

import dataclasses
import enum
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = "jaxtool"
_HEAD = struct.Struct("<Q")  # bytes of the JSON
_KINDS = "biuf?"  # of numpy: numbers and truth values


def pack(value: Any) -> bytes:
    """Raises TypeError, with the type, for what may not travel."""
    arrays: list[bytes] = []
    text = json.dumps(_packed(value, arrays, [0])).encode("ascii")
    return b"".join((_HEAD.pack(len(text)), text, *arrays))


def unpack(data: bytes | memoryview) -> Any:
    """Inverse of `pack`; arrays are copies that may be written.

    Raises:
      ValueError: the bytes are none of `pack`, or name a class that is no data of jaxtool.
    """
    view = memoryview(data)
    try:
        (length,) = _HEAD.unpack_from(view)
        tree = json.loads(bytes(view[_HEAD.size : _HEAD.size + length]))
        return _unpacked(tree, view[_HEAD.size + length :])
    except (struct.error, KeyError, TypeError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a value of another host: {type(error).__name__}: {error}") from None


def _packed(value: Any, arrays: list[bytes], offset: list[int]) -> Any:
    """The JSON of a value; what is no JSON by itself is {its kind: its parts}."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return {"array": _array(value, arrays, offset)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, enum.Enum):
        return {"enum": [_name_of(type(value)), value.name]}

    def inner(one: Any) -> Any:
        return _packed(one, arrays, offset)

    if type(value) is list:
        return [inner(one) for one in value]
    if type(value) is tuple:
        return {"tuple": [inner(one) for one in value]}
    if isinstance(value, dict):  # subclasses too, as plain ones
        return {"dict": [[inner(key), inner(one)] for key, one in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: inner(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"data": [_name_of(type(value)), fields]}
    if isinstance(value, OSError | ValueError):
        kind = "OSError" if isinstance(value, OSError) else "ValueError"
        return {"error": [kind, str(value)]}
    raise TypeError(f"{type(value).__qualname__} does not travel between hosts: {value!r:.80}")


def _array(value: Any, arrays: list[bytes], offset: list[int]) -> list[Any]:
    """Type, shape and place; the bytes are appended. A scalar has the shape ()."""
    array = np.asarray(value)
    if array.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {array.dtype} does not travel between hosts")
    data = array.tobytes()
    begin = offset[0]
    arrays.append(data)
    offset[0] += len(data)
    is_scalar = isinstance(value, np.generic)
    return [array.dtype.str, None if is_scalar else list(array.shape), begin]


def _unpacked(tree: Any, arrays: memoryview) -> Any:
    if isinstance(tree, list):
        return [_unpacked(one, arrays) for one in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, parts),) = tree.items()
    return _READERS[kind](parts, arrays)


def _read_array(parts: Any, arrays: memoryview) -> Any:
    name, shape, begin = parts
    dtype = np.dtype(name)
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype} does not travel between hosts")
    count = int(np.prod(shape or (), dtype=np.int64))
    array = np.frombuffer(arrays, dtype, count, begin).copy()
    return array[0] if shape is None else array.reshape(shape)


def _read_data(parts: Any, arrays: memoryview) -> Any:
    name, fields = parts
    made = _class_of(name)
    if not dataclasses.is_dataclass(made):
        raise ValueError(f"{name} is no dataclass")
    values = {field: _unpacked(one, arrays) for field, one in fields.items()}
    init = {f.name for f in dataclasses.fields(made) if f.init}
    out = made(**{field: one for field, one in values.items() if field in init})
    for field in values.keys() - init:
        object.__setattr__(out, field, values[field])
    return out


def _read_enum(parts: Any, arrays: memoryview) -> Any:
    del arrays
    made = _class_of(parts[0])
    if not issubclass(made, enum.Enum):
        raise ValueError(f"{parts[0]} is no enum")
    return made[parts[1]]


def _read_error(parts: Any, arrays: memoryview) -> Exception:
    del arrays
    kind, text = parts
    return OSError(text) if kind == "OSError" else ValueError(text)


_READERS = {
    "array": _read_array,
    "data": _read_data,
    "enum": _read_enum,
    "error": _read_error,
    "path": lambda text, arrays: Path(str(text)),
    "tuple": lambda parts, arrays: tuple(_unpacked(one, arrays) for one in parts),
    "dict": lambda parts, arrays: {
        _unpacked(key, arrays): _unpacked(one, arrays) for key, one in parts
    },
}


def _name_of(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__.partition(".")[0] != _PACKAGE:
        raise TypeError(f"{name} does not travel between hosts: only data of {_PACKAGE} does")
    return name


def _class_of(name: str) -> type:
    """A class of a module of jaxtool that is imported already; nothing is imported for it."""
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module) if module.partition(".")[0] == _PACKAGE else None
    for part in qualname.split("."):
        found = vars(found).get(part) if found is not None else None
    if not isinstance(found, type) or found.__module__ != module:
        raise ValueError(f"{name!r} names no data of {_PACKAGE}")
    return found
