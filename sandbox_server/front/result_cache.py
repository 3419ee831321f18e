"""Results kept for requests that allow it, shared by all clients; the least recently used go first.

Right because Execute is a pure function of its request. Only OK and ERROR are kept: a limit or a
signal can depend on load. Not covered: joining requests that run at this moment (jaxtool's client
does).
"""

import collections
import hashlib

from sandbox_server.wire import sandbox_pb2 as pb

_KEPT = (pb.STATUS_OK, pb.STATUS_ERROR)
_BYTES_PER_ENTRY = 300  # key, objects and their place in the table, about


class ResultCache:
    """At most `capacity_bytes` of results; 0 keeps none."""

    def __init__(self, capacity_bytes: int):
        self._capacity_bytes = capacity_bytes
        self._kept: collections.OrderedDict[bytes, bytes] = collections.OrderedDict()
        self.bytes = 0
        self.hits = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, request: pb.ExecuteRequest) -> pb.ExecuteResponse | None:
        """The kept result of the same request, marked `reused`; None if there is none."""
        if not request.may_reuse:
            return None
        key = _key(request)
        result = self._kept.get(key)
        if result is None:
            return None
        self._kept.move_to_end(key)
        self.hits += 1
        response = pb.ExecuteResponse.FromString(result)
        response.reused = True
        response.queue_ms = 0
        return response

    def keep(self, request: pb.ExecuteRequest, response: pb.ExecuteResponse) -> None:
        """Keeps a result if its client allows and its status cannot depend on load."""
        if not request.may_reuse or response.status not in _KEPT:
            return
        key, result = _key(request), response.SerializeToString()
        self._drop(key)
        self._kept[key] = result
        self.bytes += _size(result)
        while self.bytes > self._capacity_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        if (result := self._kept.pop(key, None)) is not None:
            self.bytes -= _size(result)


def _size(result: bytes) -> int:
    return len(result) + _BYTES_PER_ENTRY


def _key(request: pb.ExecuteRequest) -> bytes:
    """Of everything that the result depends on, and of what the client demands of the server."""
    same = pb.ExecuteRequest()
    same.CopyFrom(request)
    same.ClearField("request_id")
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=32).digest()
