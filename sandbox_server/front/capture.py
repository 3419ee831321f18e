"""Keeps the head and the tail of a stream of bytes within a limit. Pure."""


class Capture:
    """Output of one stream: the first three quarters of `limit` bytes and the last quarter."""

    def __init__(self, limit: int):
        self._tail_limit = limit // 4
        self._head_limit = limit - self._tail_limit
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def feed(self, chunk: bytes) -> None:
        self.total += len(chunk)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if chunk:
            self._tail += chunk
            if len(self._tail) > 2 * self._tail_limit + 65536:
                del self._tail[: -self._tail_limit or None]

    @property
    def is_truncated(self) -> bool:
        return self.total > self._head_limit + self._tail_limit

    def text(self) -> str:
        """UTF-8 with replacement; a cut never leaves half a character."""
        if not self.is_truncated:
            return (bytes(self._head) + bytes(self._tail)).decode("utf-8", "replace")
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        skip = 0
        while skip < min(3, len(tail)) and tail[skip] & 0xC0 == 0x80:
            skip += 1
        head = bytes(self._head)
        cut = self.total - len(head) - len(tail) + skip
        complete = _without_partial_character(head)
        cut += len(head) - len(complete)
        marker = f"\n[… {cut} bytes cut …]\n"
        return complete.decode("utf-8", "replace") + marker + tail[skip:].decode("utf-8", "replace")


def _without_partial_character(head: bytes) -> bytes:
    for back in range(1, min(4, len(head) + 1)):
        byte = head[-back]
        if byte & 0xC0 == 0xC0:  # a first byte: is its character complete?
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return head[:-back] if back < size else head
        if byte < 0x80:
            break
    return head
