"""A header that promises more than its file is refused where it does, in no time and no memory."""

import struct

import pytest

from jaxtool.core.gguf_file import open_gguf
from jaxtool.core.gguf_header import DamagedHeader, check_gguf_header_fits

HUGE = 2**62


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def text(value):
    return u64(len(value)) + value


def header(*parts, version=3, tensors=0, values=1):
    return b"GGUF" + u32(version) + u64(tensors) + u64(values) + b"".join(parts)


def tensor(name=b"t", dims=(2, 3)):
    return text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(0) + u64(0)


@pytest.mark.parametrize(
    "raw",
    [
        header(values=0),
        header(text(b"a"), u32(4), u32(7)),
        header(text(b"a"), u32(8), text(b"word"), version=2),
        header(text(b"a"), u32(9), u32(8), u64(2), text(b"x"), text(b"")),
        header(text(b"a"), u32(9), u32(5), u64(3), u32(1) * 3),
        header(text(b"a"), u32(9), u32(9), u64(1), u32(0), u64(2), b"12"),
        header(tensor(), tensor(dims=()), values=0, tensors=2),
    ],
)
def test_whole_headers(tmp_path, raw):
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    check_gguf_header_fits(path)
    path.write_bytes(raw[:-1])
    with pytest.raises(DamagedHeader):
        check_gguf_header_fits(path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (header(version=1), "version 1 at byte 4"),
        (header(version=0x03000000), "version 50331648"),  # big-endian
        (header(values=HUGE), f"{HUGE} values before byte 24"),
        (header(tensors=HUGE, values=0), f"{HUGE} tensors"),
        (header(u64(HUGE), b"aaaaaaaaaaaaaaaa"), f"key of {HUGE} bytes at byte 32"),
        (header(text(b"a"), u32(8), u64(HUGE)), f"text of {HUGE} bytes"),
        (header(text(b"a"), u32(9), u32(4), u64(HUGE)), f"{HUGE} numbers of a list"),
        (header(text(b"a"), u32(9), u32(8), u64(HUGE)), f"{HUGE} members of a list"),
        (header(text(b"a"), u32(9), u32(9), u64(HUGE)), f"{HUGE} members of a list"),
        (header(text(b"a"), u32(13), u64(0)), "type 13 of a value"),
        (header(text(b"a"), *[u32(9), *[u32(9) + u64(1)] * 6], b"0" * 16), "lists in lists"),
        (header(tensor(dims=(1,) * 5), values=0, tensors=1), "5 dimensions of a tensor"),
        (b"GGUF\x03", "version of 4 bytes at byte 4"),
    ],
)
def test_counts_that_the_file_cannot_hold(tmp_path, raw, message):
    path = tmp_path / "model.gguf"
    path.write_bytes(raw)
    with pytest.raises(DamagedHeader, match=message):
        check_gguf_header_fits(path)
    with pytest.raises(
        ValueError, match=r"model\.gguf' is cut short, or no GGUF .*copy or download"
    ):
        open_gguf(path)
