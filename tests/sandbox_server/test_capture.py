"""Output is cut to head and tail, at characters."""

from hypothesis import given
from hypothesis import strategies as st

from sandbox_server.front.capture import Capture


def _captured(data: bytes, limit: int, chunk: int = 7) -> Capture:
    capture = Capture(limit)
    for start in range(0, len(data), chunk):
        capture.feed(data[start : start + chunk])
    return capture


def test_short_output_is_kept_whole():
    assert _captured("héllo".encode(), 64).text() == "héllo"


def test_long_output_keeps_head_and_tail():
    capture = _captured(b"a" * 100 + b"z" * 100, 40)
    assert capture.text() == "a" * 30 + "\n[… 160 bytes cut …]\n" + "z" * 10
    assert capture.is_truncated
    assert capture.total == 200


def test_bad_bytes_are_replaced_one_by_one():
    assert _captured(b"ok\xff\xfeok", 64).text() == "ok\ufffd\ufffdok"


def test_bad_bytes_at_the_end_read_alike_whole_and_in_pieces():
    for end in (b"\xed\xa0", b"\xf0\x9f", b"\xe2\x82", b"\xf4\x90"):
        assert _captured(b"ok" + end, 64, chunk=1).text() == (b"ok" + end).decode(errors="replace")


@given(st.text(alphabet="aé数😀", max_size=300), st.integers(16, 200), st.integers(1, 50))
def test_a_cut_never_breaks_a_character(text, limit, chunk):
    capture = _captured(text.encode(), limit, chunk)
    shown = capture.text()
    assert "\ufffd" not in shown
    if capture.is_truncated:
        head, _, rest = shown.partition("\n[… ")
        tail = rest.partition(" bytes cut …]\n")[2]
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len((head + tail).encode()) <= limit
        cut = int(rest.partition(" ")[0])
        assert cut + len((head + tail).encode()) == len(text.encode())
    else:
        assert shown == text


def test_memory_stays_bounded_under_a_flood():
    capture = Capture(1024)
    for _ in range(200):
        capture.feed(b"x" * 65536)
    assert len(capture._tail) < 300_000


def test_bytes_that_become_longer_as_text_are_counted_as_text():
    """What a client is sent is UTF-8, where each bad byte takes three."""
    for data in (b"\xff" * 1000, b"a" + b"\xff" * 1000, b"\xf0\x9f" * 500, b"\xff\xc3" * 300):
        capture = _captured(data, 100)
        text = capture.text()
        head, _, rest = text.partition("\n[… ")
        tail = rest.partition(" bytes cut …]\n")[2]
        assert len((head + tail).encode()) <= 100
        assert capture.is_truncated
        assert capture.total == len(data)


@given(st.binary(max_size=80), st.integers(1, 9))
def test_chunks_do_not_change_the_text(data, chunk):
    capture = _captured(data, 1000, chunk)
    assert capture.text() == data.decode("utf-8", "replace")
    assert capture.text() == capture.text()
