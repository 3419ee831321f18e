"""Keeps the head and the tail of a stream within a limit, counted in bytes as a client gets them. Pure.

A client gets UTF-8, in which each byte that is none becomes U+FFFD, three bytes. So what is kept is
decoded and encoded as it comes: 100 kB of b"\\xff" are 300 kB of text, and cut as that.
"""

import codecs


class Capture:
    """Output of one stream: the first three quarters of `limit` bytes and the last quarter."""

    def __init__(self, limit: int):
        self._tail_limit = limit // 4
        self._head_limit = limit - self._tail_limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = bytearray()
        self._tail = bytearray()
        self._text_bytes = 0
        self.total = 0  # bytes that the program wrote

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        text = self._decoder.decode(chunk).encode()
        self._text_bytes += len(text)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += text[:room]
            text = text[room:]
        if text:
            self._tail += text
            if len(self._tail) > 2 * self._tail_limit + 65536:
                del self._tail[: -self._tail_limit or None]

    @property
    def _unfinished(self) -> bytes:
        """What a last character that has not come whole reads as; bytes that begin none are replaced one by one."""
        return self._decoder.getstate()[0].decode(errors="replace").encode()

    @property
    def is_truncated(self) -> bool:
        total = self._text_bytes + len(self._unfinished)
        return total > self._head_limit + self._tail_limit

    def text(self) -> str:
        """UTF-8 with replacement; a cut never leaves half a character."""
        end = bytes(self._tail) + self._unfinished
        if not self.is_truncated:
            return (bytes(self._head) + end).decode()
        tail = end[-self._tail_limit :] if self._tail_limit else b""
        skip = 0
        while skip < min(3, len(tail)) and tail[skip] & 0xC0 == 0x80:
            skip += 1
        head = _without_partial_character(bytes(self._head))
        tail = tail[skip:]
        cut = self._text_bytes + len(self._unfinished) - len(head) - len(tail)
        return f"{head.decode()}\n[… {cut} bytes cut …]\n{tail.decode()}"


def _without_partial_character(head: bytes) -> bytes:
    for back in range(1, min(4, len(head) + 1)):
        byte = head[-back]
        if byte & 0xC0 == 0xC0:  # a first byte: is its character complete?
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return head[:-back] if back < size else head
        if byte < 0x80:
            break
    return head
