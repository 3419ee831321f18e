"""Prompts through the policy: in length buckets, several per call, whole or in chunks."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.program_table import ProgramTable
from jaxtool.model.kv_cache import KVCache
from jaxtool.model.transformer import Params


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """A prompt whose keys and values wait to be placed in any number of cache rows."""

    cache: KVCache  # of the prefill call it was part of
    source: int  # row of that call
    ids: tuple[int, ...]
    # Rows of one prompt share its full pages, see `page_pool`; no number, for those are used again.
    key: object = dataclasses.field(default_factory=object, compare=False)

    @property
    def bucket(self) -> int:
        return jax.tree.leaves(self.cache)[0].shape[2]


@dataclasses.dataclass(kw_only=True)
class PrefillCall:
    """Prompts of one length bucket on their way through the policy, together."""

    prompts: tuple[tuple[int, ...], ...]
    indices: tuple[int, ...]  # where each stood in the sequence that was asked for
    tokens: np.ndarray  # [R, bucket] int32
    end: int  # columns that hold a token of any prompt
    cache: KVCache | None = None
    done: int = 0  # columns run

    @property
    def bucket(self) -> int:
        return self.tokens.shape[1]

    @property
    def is_done(self) -> bool:
        return self.cache is not None and self.done >= self.end

    def prefilled(self) -> list[Prefilled]:
        """In the order of `prompts`."""
        if self.cache is None or not self.is_done:
            raise RuntimeError(f"{self.done} of {self.end} columns of this prefill have run")
        return [Prefilled(self.cache, i, ids) for i, ids in enumerate(self.prompts)]


def start_prefill(prompts: Sequence[Sequence[int]], config: EngineConfig) -> list[PrefillCall]:
    """Calls that `advance_prefill` must finish. All but the last token of each prompt are run.

    Raises:
      ValueError: a prompt is empty or too long.
    """
    by_bucket: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        if not 1 <= len(prompt) < config.max_tokens:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens does not fit EngineConfig.max_tokens="
                f"{config.max_tokens}: raise it or shorten the prompt"
            )
        by_bucket.setdefault(config.bucket_of(len(prompt)), []).append(index)
    calls = []
    for bucket, indices in by_bucket.items():
        for begin in range(0, len(indices), config.prefill_rows):
            part = tuple(indices[begin : begin + config.prefill_rows])
            tokens = np.zeros((config.prefill_rows, bucket), np.int32)
            for row, index in enumerate(part):
                ids = prompts[index][:-1]
                tokens[row, : len(ids)] = ids
            chosen = tuple(tuple(prompts[index]) for index in part)
            end = max(len(ids) - 1 for ids in chosen)
            calls.append(PrefillCall(prompts=chosen, indices=part, tokens=tokens, end=end))
    return calls


def advance_prefill(call: PrefillCall, params: Params, table: ProgramTable) -> None:
    """Runs one chunk of a call: the whole of it where the bucket is no longer than a chunk."""
    program, chunk = table.prefill(call.bucket), table.config.chunk_of(call.bucket)
    if chunk == call.bucket:
        call.cache = program(params, call.tokens)
    else:
        if call.cache is None:
            call.cache = table.empty_prompts(call.bucket)
        # The last chunk begins earlier where it would not fit: a token run twice is the same token.
        start = min(call.done, call.bucket - chunk)
        tokens = call.tokens[:, start : start + chunk]
        call.cache = program(params, call.cache, tokens, np.int32(start))
    call.done += chunk
