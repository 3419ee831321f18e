"""Seeds of named random streams, in plain Python: what `rng` and the data sets are drawn by."""

import hashlib


def stream_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the stream named by `path`, stable across processes and versions."""
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
