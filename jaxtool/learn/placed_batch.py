"""A packed batch on the devices: cut into mini-batches and blocks of rows once, read by every pass.

An update makes up to five passes over a batch: log-probs of the reference, values, old log-probs, the
critic's gradient, the policy's gradient. All of them iterate over the same placed blocks.

Example: 5 rows, 2 updates a batch, blocks of 2 rows.
  In:  rows 0 1 2 3 4
  Out: mini-batch 0 = rows 0 2 4 in blocks (0 2) (4 padding); mini-batch 1 = rows 1 3 in block (1 3)
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.state import row_blocks
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import fetch, put


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiniBatch:
    """The rows of one update."""

    rows: slice  # of the batch
    host: TrainBatch
    blocks: tuple[TrainBatch, ...]  # the same on the devices, the last one filled up with padding


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedBatch:
    """The rows of all updates of a rollout batch, on the host and on the devices."""

    host: TrainBatch
    mini_batches: tuple[MiniBatch, ...]
    sharding: Sharding

    def as_one(self) -> "PlacedBatch":
        """The same blocks as a single mini-batch."""
        blocks = tuple(block for mini in self.mini_batches for block in mini.blocks)
        whole = MiniBatch(rows=slice(None), host=self.host, blocks=blocks)
        return dataclasses.replace(self, mini_batches=(whole,))

    def gathered(self, program: Callable[[TrainBatch], jax.Array]) -> np.ndarray:
        """[B, T], what a program gives for each block [rows, T], back in the order of the batch's rows.

        Blocks are handed to the program without targets. All of them start before the first is read.
        """
        results = [
            [program(block.without_targets()) for block in mini.blocks]
            for mini in self.mini_batches
        ]
        out = np.zeros(self.host.shape, np.float32)
        for mini, parts in zip(self.mini_batches, results, strict=True):
            whole = np.concatenate([fetch(part) for part in parts])
            out[mini.rows] = whole[: mini.host.shape[0]]
        return out

    def placed(self, array: np.ndarray) -> list[list[jax.Array]]:
        """[B, T] numbers of tokens on the devices, as the blocks lie, padded with 0: by mini-batch and block."""
        layout = self.sharding.named("batch", "length")
        out = []
        for mini in self.mini_batches:
            rest, parts = array[mini.rows], []
            for block in mini.blocks:
                size = block.tokens.shape[0]
                part, rest = rest[:size], rest[size:]
                padding = ((0, size - part.shape[0]), (0, 0))
                parts.append(put(np.pad(part, padding), layout))
            out.append(parts)
        return out

    def with_columns(self, **columns: np.ndarray) -> "PlacedBatch":
        """The batch with other [B, T] fields of `TrainBatch`; nothing else is copied to the devices again."""
        device = {name: self.placed(array) for name, array in columns.items()}
        minis = []
        for m, mini in enumerate(self.mini_batches):
            blocks = tuple(
                dataclasses.replace(block, **{name: parts[m][b] for name, parts in device.items()})
                for b, block in enumerate(mini.blocks)
            )
            host: Any = {name: array[mini.rows] for name, array in columns.items()}
            minis.append(
                dataclasses.replace(
                    mini, host=dataclasses.replace(mini.host, **host), blocks=blocks
                )
            )
        host = dataclasses.replace(self.host, **columns)
        return dataclasses.replace(self, host=host, mini_batches=tuple(minis))


def place(batch: TrainBatch, *, updates: int, rows: int, sharding: Sharding) -> PlacedBatch:
    """Copies a host batch to the devices.

    Args:
      updates: mini-batches, one a row at most.
      rows: of a block.
    """
    parts = min(updates, batch.shape[0])
    on_devices = dataclasses.replace(batch, token_rewards=None)
    minis = []
    for part in range(parts):
        # Strided, because packing puts the longest trajectories into the first rows.
        chosen = slice(part, None, parts)
        device_rows = jax.tree.map(lambda x: x[chosen], on_devices)  # noqa: B023
        minis.append(
            MiniBatch(
                rows=chosen,
                host=jax.tree.map(lambda x: x[chosen], batch),  # noqa: B023
                blocks=tuple(row_blocks(device_rows, rows, sharding)),
            )
        )
    return PlacedBatch(host=batch, mini_batches=tuple(minis), sharding=sharding)
