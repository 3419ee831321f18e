"""Files that cannot be written are refused by name, in one short line, before anything runs."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front.engine import check_code_and_input
from sandbox_server.front.request_files import InvalidRequest, check_files
from sandbox_server.front.service import refusal_of
from sandbox_server.inside.lockdown import Tier

_INODES = 4096


def refusal(files: dict[str, bytes], inodes: int = _INODES, **limits: int) -> str:
    with pytest.raises(InvalidRequest) as caught:
        check_files(files, LimitSet(**limits), inodes)
    line = refusal_of(caught.value).message
    assert line.splitlines() == [line]
    assert line.replace("…", "").isascii()
    assert len(line) < 300
    return line


@pytest.mark.parametrize(
    "name",
    ["", "/etc/x", "..", "../x", "a/../b", "a//b", "a/", "/", ".", "a/./b", "a\0b", "\0", "./a",
     "x" * 300, "x" * 1_000_000, "é" * 128, "a/" * 600 + "b", "e\u0301", "a/\u1100\u1161", "\ud800", "\udcff/x",
     "\n" * 300, "\u202e" * 256],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(name):
    assert refusal({"good": b"", name: b"x"}).startswith("file name ")


@pytest.mark.parametrize(
    "names", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "x", "a/b"), ("a", "a/b/c/d")]
)
def test_a_file_that_is_a_directory_of_another_is_refused(names):
    assert "is also a directory" in refusal(dict.fromkeys(names, b""))


def test_too_many_and_too_much_are_refused():
    assert "5000 files" in refusal({f"f{i}": b"" for i in range(5000)})
    assert "of both have room" in refusal({f"{i}/f": b"" for i in range(40)}, inodes=64)
    assert "whole pages" in refusal({f"f{i}": b"x" for i in range(9)}, scratch_bytes=8 * 4096)
    assert "whole pages" in refusal({"f": b"x" * 4097}, scratch_bytes=4096)
    assert "quarter" in refusal({"f": b"x" * (1 << 19)}, memory_bytes=1 << 20)


def test_good_names_pass():
    names = (
        "a/b.txt",
        "a/c",
        "b",
        "ü.txt",
        "数",
        "with space",
        "...",
        "-rf",
        "~",
        "a" * 255,
        "x/" * 60 + "y",
    )
    check_files(dict.fromkeys(names, b"x"), LimitSet(), _INODES)
    check_files({"f": b"x" * 4096}, LimitSet(scratch_bytes=4096), _INODES)


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=9), max_size=5))
def test_any_names_pass_or_are_refused_in_one_line(files):
    said = ""
    try:
        check_files(files, LimitSet(), _INODES)
    except InvalidRequest as error:
        said = str(error)
    assert len(said) < 300
    assert len(said.splitlines()) <= 1


def test_input_is_bounded():
    config = ServerConfig(input_bytes=100)
    for stdin, files in (("x" * 101, {}), ("", {"f": b"x" * 101}), ("é" * 30, {"f": b"x" * 41})):
        with pytest.raises(InvalidRequest, match="101 bytes, at most 100 are taken"):
            check_code_and_input("1", stdin, files, LimitSet(), Tier.NAMESPACE, config)
    check_code_and_input("1", "x" * 50, {"f": b"x" * 50}, LimitSet(), Tier.NAMESPACE, config)
    with pytest.raises(InvalidRequest, match="need the namespace tier"):
        check_code_and_input("1", "", {"f": b""}, LimitSet(), Tier.LANDLOCK, config)
    assert dataclasses.replace(config, code_bytes=7).max_message_bytes == 107 + (1 << 20)
