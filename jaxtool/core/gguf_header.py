"""The header of a GGUF file, walked once before a library reads it: no count in it may exceed the file.

The library trusts every count and length, so a damaged one makes it read for ever or take all memory.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Not covered: what the values mean.
"""

import mmap
import struct
from pathlib import Path

_SIZES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # bytes, by type of value
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 4
_MAX_ARRAY_DEPTH = 4
_VERSIONS = (2, 3)


class DamagedHeader(ValueError):
    """A count, length or type that the file cannot hold; says where."""


def check_gguf_header_fits(path: Path) -> None:
    """Raises DamagedHeader unless the header is one that the file holds as a whole.

    Args:
      path: of a file that begins with "GGUF".
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        _Walk(raw).header()


class _Walk:
    """A position in the file that only moves forward."""

    def __init__(self, raw: mmap.mmap):
        self._raw, self._at = raw, 4  # behind the magic

    def header(self) -> None:
        version = self._u32("version")
        if version not in _VERSIONS:
            raise DamagedHeader(f"version {version} at byte 4; versions 2 and 3 are read")
        tensors, values = self._u64("number of tensors"), self._u64("number of values")
        self._check_room(tensors, 24, "tensors")  # name, dimensions, type, offset
        self._check_room(values, 13, "values")  # key, type, a byte
        for _ in range(values):
            self._string("key")
            self._value(self._u32("type"))
        for _ in range(tensors):
            self._string("name of a tensor")
            dims = self._u32("number of dimensions")
            if dims > _MAX_DIMS:
                raise DamagedHeader(f"{dims} dimensions of a tensor before byte {self._at}")
            self._skip(8 * dims + 12, "shape of a tensor")

    def _value(self, kind: int, depth: int = 0) -> None:
        if kind == _STRING:
            self._string("text")
        elif kind == _ARRAY:
            if depth == _MAX_ARRAY_DEPTH:
                raise DamagedHeader(f"lists in lists in lists before byte {self._at}")
            inner, count = self._u32("type of a list"), self._u64("length of a list")
            if inner in _SIZES:
                self._check_room(count, _SIZES[inner], "numbers of a list")
                self._skip(count * _SIZES[inner], "list")
                return
            self._check_room(count, 8 if inner == _STRING else 12, "members of a list")
            for _ in range(count):
                self._value(inner, depth + 1)
        elif kind in _SIZES:
            self._skip(_SIZES[kind], "number")
        else:
            raise DamagedHeader(f"type {kind} of a value before byte {self._at}; there are 0 to 12")

    def _string(self, what: str) -> None:
        self._skip(self._u64(f"length of a {what}"), what)

    def _u32(self, what: str) -> int:
        self._skip(4, what)
        return struct.unpack_from("<I", self._raw, self._at - 4)[0]

    def _u64(self, what: str) -> int:
        self._skip(8, what)
        return struct.unpack_from("<Q", self._raw, self._at - 8)[0]

    def _skip(self, size: int, what: str) -> None:
        if size > len(self._raw) - self._at:
            raise DamagedHeader(
                f"{what} of {size} bytes at byte {self._at}, and the file has {len(self._raw)}"
            )
        self._at += size

    def _check_room(self, count: int, least: int, what: str) -> None:
        if count * least > len(self._raw) - self._at:
            raise DamagedHeader(
                f"{count} {what} before byte {self._at}, and the file has {len(self._raw)} bytes"
            )
