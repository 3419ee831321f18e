"""Bytes of single pieces, by hand."""

import pytest

from jaxtool.data.token_bytes import (
    byte_level_bytes,
    byte_of_character,
    metaspace_bytes,
    piece_decoder,
    spaced_bytes,
    without_prefix,
)


def test_the_byte_map_is_a_bijection_of_all_bytes():
    table = byte_of_character()
    assert sorted(table.values()) == list(range(256))
    assert (table["Ġ"], table["Ċ"], table["A"]) == (0x20, 0x0A, 0x41)


def test_pieces_by_hand():
    assert byte_level_bytes("ĠParis") == b" Paris"
    assert byte_level_bytes("ðŁĺ") == "😀".encode()[:3]
    assert metaspace_bytes("▁the") == b" the"
    assert metaspace_bytes("<0xE2>") == b"\xe2"
    assert metaspace_bytes("<0xE2") == b"<0xE2"
    assert spaced_bytes("▁<0xE2>") == b" <0xE2>"
    assert byte_level_bytes("a▁é") == "a▁é".encode()  # ▁ stands for no byte


def test_decoders_are_recognised_or_refused_by_name():
    assert piece_decoder({"type": "ByteLevel"}) is byte_level_bytes
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    assert piece_decoder(metaspace) is spaced_bytes
    fallback = {"type": "Sequence", "decoders": [metaspace, {"type": "ByteFallback"}]}
    assert piece_decoder(fallback) is metaspace_bytes
    for decoder in ({"type": "WordPiece", "prefix": "##"}, None, metaspace | {"replacement": "_"}):
        with pytest.raises(ValueError, match="is not supported"):
            piece_decoder(decoder)


def test_a_dummy_prefix_is_taken_out_wherever_it_is():
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    prepend = {"type": "Prepend", "prepend": "▁"}
    both = {"type": "Sequence", "normalizers": [prepend, replace]}
    assert without_prefix(both) == {"type": "Sequence", "normalizers": [replace]}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
    assert without_prefix(metaspace)["prepend_scheme"] == "never"
    assert without_prefix(None) is None
