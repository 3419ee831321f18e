"""Host side of the decoder: slots, and the verbs prefill, place, append, resume, release, window.

Which program runs a token, and in which shape, depends on that token's own row alone (its prompt's
length bucket, its tool output's length), never on its neighbours. That is what makes a row's tokens
the same whatever shares the batch with it.

Not covered here: text, tags, tools, queues (see `jaxtool.rollout.collector`), decoding wider than
the cache has rows, paged caches.
"""

import dataclasses
import heapq
from collections.abc import Sequence

import jax
import numpy as np

from jaxtool.decode import programs
from jaxtool.decode.programs import Rows, Window
from jaxtool.decode.publish import publish
from jaxtool.decode.sampling import Sampling
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import KVCache, cache_bytes
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Shapes of the decoder. Every program is compiled for these and no others."""

    slots: int = 64  # B, rows of the cache; at least 4, small products are slow in bfloat16
    max_tokens: int = 512  # S, longest trajectory, prompt included
    window_steps: int = 32  # K; peers saw 25 % lost by returning on every end of a row
    min_view: int = 128  # attention reads this many cache slots, doubled up to max_tokens
    prefill_rows: int = 8  # R, prompts per prefill call
    min_prompt_bucket: int = 16  # shortest padded prompt, doubled up to max_tokens
    forced_tokens: int = 32  # F; longer tool outputs go by chunks of this many tokens
    append_rows: int = 4  # tool outputs per chunked append

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise ValueError(f"EngineConfig.{field.name} must be >= 1, got {value}")

    @property
    def views(self) -> tuple[int, ...]:
        return _doublings(self.min_view, self.max_tokens)

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        return _doublings(self.min_prompt_bucket, self.max_tokens)


@dataclasses.dataclass(kw_only=True)
class EngineCounts:
    """Work done since the engine was made."""

    windows: int = 0
    steps: int = 0
    slot_steps: int = 0  # steps x slots: what the device paid for
    sampled_tokens: int = 0
    prefilled_tokens: int = 0  # prompt tokens run, once per problem
    appended_tokens: int = 0  # tool tokens, riding or by chunk
    reprefilled_tokens: int = 0  # tokens run a second time; 0 is the promise


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """A prompt whose keys and values wait to be placed in any number of slots."""

    cache: KVCache  # of the prefill call it was part of
    source: int  # row of that call
    ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    slot: int
    prompt: Prefilled
    row_key: np.ndarray  # [2] uint32
    limit: int  # tokens the row may hold, prompt included


class DecodeEngine:
    """Slots over one KV cache. Host arrays say what each row does; the cache never leaves the device."""

    def __init__(
        self,
        *,
        model: ModelConfig,
        config: EngineConfig,
        sharding: Sharding,
        is_stop: np.ndarray,
    ):
        """`is_stop` [V] bool: tokens after which a row waits for the host."""
        if is_stop.shape != (model.vocab_size,):
            raise ValueError(f"{is_stop.shape=} must be ({model.vocab_size},)")
        rows_cut = sharding.mesh.shape["data"] * sharding.mesh.shape["fsdp"]
        for name, count in (("slots", config.slots), ("prefill_rows", config.prefill_rows)):
            if count % rows_cut:
                raise ValueError(
                    f"EngineConfig.{name}={count} must be a multiple of data x fsdp = {rows_cut}"
                )
        self.model, self.config, self.sharding = model, config, sharding
        self.counts = EngineCounts()
        self._is_stop = jax.device_put(is_stop, sharding.named(None))
        self._rows = programs.idle_rows(config.slots, config.forced_tokens)
        self._high_water = np.zeros(config.slots, np.int32)
        self._free = list(range(config.slots))  # a heap: the same rows get the same slots
        self._params: Params | None = None
        self._cache: KVCache | None = self._empty_cache()

    @property
    def cache_bytes(self) -> int:
        return cache_bytes(self.model, self.config.slots, self.config.max_tokens)

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def is_any_running(self) -> bool:
        return bool(self._rows.is_running.any())

    def load(self, params: Params) -> None:
        """Publishes learner parameters (stacked layers, float32) to the decoder's layout and dtype."""
        self._params = None  # the copy before goes first: two need not fit
        self._params = publish(params, self.model, self.sharding)
        if self._cache is None:
            self._cache = self._empty_cache()

    def unload(self) -> None:
        """Frees parameters and cache for the learner; `load` makes both again.

        Raises:
          RuntimeError: a slot is taken, whose cache would be lost.
        """
        if len(self._free) < self.config.slots:
            raise RuntimeError(f"{self.config.slots - len(self._free)} slots are still taken")
        self._params = self._cache = None

    def take_slot(self) -> int:
        return heapq.heappop(self._free)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> list[Prefilled]:
        """Runs all but the last token of each prompt, once, in calls of one fixed shape."""
        out: dict[int, Prefilled] = {}
        for bucket, indices in self._by_bucket(prompts).items():
            for chunk in _chunks(indices, self.config.prefill_rows):
                tokens = np.zeros((self.config.prefill_rows, bucket), np.int32)
                for row, index in enumerate(chunk):
                    ids = prompts[index][:-1]
                    tokens[row, : len(ids)] = ids
                    self.counts.prefilled_tokens += len(ids)
                cache = programs.prefill(
                    self._loaded(), tokens, config=self.model, sharding=self.sharding
                )
                for row, index in enumerate(chunk):
                    out[index] = Prefilled(cache, row, tuple(prompts[index]))
        return [out[index] for index in range(len(prompts))]

    def place(self, placements: Sequence[Placement]) -> None:
        """Copies prefilled prompts into slots and starts those rows."""
        by_call: dict[int, list[Placement]] = {}
        for placement in placements:
            by_call.setdefault(id(placement.prompt.cache), []).append(placement)
        for group in by_call.values():
            sources = np.zeros(self.config.slots, np.int32)
            slots = np.full(self.config.slots, self.config.slots, np.int32)  # out of range: dropped
            for i, placement in enumerate(group):
                sources[i], slots[i] = placement.prompt.source, placement.slot
                self._start(placement)
            self._cache = programs.place(
                self._cache, group[0].prompt.cache, sources, slots, sharding=self.sharding
            )

    def append(self, outputs: dict[int, Sequence[int]]) -> None:
        """Puts tool tokens behind each slot's pending token and sets those rows running.

        Short outputs ride the next window as forced tokens; long ones run in chunks here.
        """
        long: dict[int, Sequence[int]] = {}
        for slot, ids in outputs.items():
            self.counts.appended_tokens += len(ids)
            if len(ids) <= self.config.forced_tokens:
                self._rows.forced[slot, : len(ids)] = ids
                self._rows.forced_next[slot] = 0
                self._rows.forced_count[slot] = len(ids)
            else:
                long[slot] = [int(self._rows.pending[slot]), *ids]
            self._rows.is_running[slot] = True
        for slots in _chunks(sorted(long), self.config.append_rows):
            self._append_chunks({slot: long[slot] for slot in slots})

    def resume(self, slot: int) -> None:
        """Goes on with a row that stopped at what was no closing tag."""
        self._rows.is_running[slot] = True

    def release(self, slot: int) -> None:
        """Frees a slot; its cache is overwritten by whoever comes next."""
        self._rows.is_running[slot] = False
        self._rows.lengths[slot] = 0
        self._rows.forced_count[slot] = self._rows.forced_next[slot] = 0
        heapq.heappush(self._free, slot)

    def dispatch_window(self, sampling: Sampling) -> tuple[Rows, Window]:
        """Starts K steps on the device and returns at once; `fetch` waits for them."""
        running = self._rows.lengths[self._rows.is_running]
        longest = int(running.max()) + self.config.window_steps + 1
        view = next((v for v in self.config.views if v >= longest), self.config.views[-1])
        self._cache, rows, log = programs.window(
            self._loaded(),
            self._cache,
            self._rows,
            self._is_stop,
            config=self.model,
            sampling=sampling,
            steps=self.config.window_steps,
            view=view,
            sharding=self.sharding,
        )
        return rows, log

    def fetch(self, rows: Rows, log: Window) -> Window:
        """Waits for a window; afterwards rows with is_running False wait for the host."""
        rows, log = jax.device_get((rows, log))
        for name in ("lengths", "pending", "is_running", "forced_next"):
            np.copyto(getattr(self._rows, name), getattr(rows, name))
        np.maximum(self._high_water, self._rows.lengths, out=self._high_water)
        steps = int(log.steps)
        self.counts.windows += 1
        self.counts.steps += steps
        self.counts.slot_steps += steps * self.config.slots
        self.counts.sampled_tokens += int(log.is_sampled[:steps].sum())
        return dataclasses.replace(
            log,
            tokens=log.tokens[:steps],
            logprobs=log.logprobs[:steps],
            is_sampled=log.is_sampled[:steps],
            steps=steps,
        )

    def is_running(self, slot: int) -> bool:
        return bool(self._rows.is_running[slot])

    def _start(self, placement: Placement) -> None:
        slot, rows = placement.slot, self._rows
        rows.lengths[slot] = self._high_water[slot] = len(placement.prompt.ids) - 1
        rows.pending[slot] = placement.prompt.ids[-1]
        rows.is_running[slot] = True
        rows.limits[slot] = placement.limit
        rows.keys[slot] = placement.row_key
        rows.forced_next[slot] = rows.forced_count[slot] = 0

    def _append_chunks(self, outputs: dict[int, Sequence[int]]) -> None:
        """Runs every token but the last of each output; the last becomes pending."""
        c = self.config.forced_tokens
        r = self.config.append_rows
        longest = max(len(ids) - 1 for ids in outputs.values())
        for begin in range(0, longest, c):
            tokens = np.zeros((r, c), np.int32)
            slots = np.full(r, self.config.slots, np.int32)
            starts = np.full(r, self.config.max_tokens, np.int32)
            for i, (slot, ids) in enumerate(outputs.items()):
                part = ids[begin : min(begin + c, len(ids) - 1)]
                if not part:
                    continue
                start = int(self._rows.lengths[slot])
                slots[i], starts[i] = slot, start
                tokens[i, : len(part)] = part
                self.counts.reprefilled_tokens += max(0, int(self._high_water[slot]) - start)
                self._rows.lengths[slot] = self._high_water[slot] = start + len(part)
            view = next(v for v in self.config.views if v >= int(self._rows.lengths.max()))
            self._cache = programs.append(
                self._loaded(),
                self._cache,
                slots,
                tokens,
                starts,
                config=self.model,
                view=view,
                sharding=self.sharding,
            )
        for slot, ids in outputs.items():
            self._rows.pending[slot] = ids[-1]

    def _by_bucket(self, prompts: Sequence[Sequence[int]]) -> dict[int, list[int]]:
        by_bucket: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            if not 1 <= len(prompt) < self.config.max_tokens:
                raise ValueError(
                    f"a prompt of {len(prompt)} tokens does not fit EngineConfig.max_tokens="
                    f"{self.config.max_tokens}: raise it or shorten the prompt"
                )
            bucket = next(b for b in self.config.prompt_buckets if b >= len(prompt) - 1)
            by_bucket.setdefault(bucket, []).append(index)
        return by_bucket

    def _empty_cache(self) -> KVCache:
        return programs.empty_cache(
            config=self.model,
            sharding=self.sharding,
            rows=self.config.slots,
            slots=self.config.max_tokens,
        )

    def _loaded(self) -> Params:
        if self._params is None:
            raise RuntimeError("the engine has no parameters yet: call load(params) first")
        return self._params


def _doublings(first: int, last: int) -> tuple[int, ...]:
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return (*sizes, last)


def _chunks(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
