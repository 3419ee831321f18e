"""Stands in for a DecodeEngine: what the policy "samples" is written down, the verbs are the same."""

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from jaxtool.core.types import Problem, Trajectory, trajectories_of
from jaxtool.data.tokenizer import VocabularyTokenizer
from jaxtool.decode.config import EngineCounts
from jaxtool.decode.pieces import Placement
from jaxtool.decode.prefill import PrefillCall
from jaxtool.decode.programs import Window
from jaxtool.decode.sampling import Sampling
from jaxtool.parallel.axis_rules import single_device
from jaxtool.renderers.renderer import Renderer, load_renderer, stop_token_mask
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.tools.menu import Menu

EOS = "<end of response>"
ANSWER = ["<answer>", "4", "</answer>"]
CALL = ["<code>", "2", "+", "2", "</code>"]


def substrings(text: str) -> set[str]:
    return {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}


def splits(text: str) -> list[list[str]]:
    """All ways to cut a text into pieces."""
    if not text:
        return [[]]
    return [[text[:i], *rest] for i in range(1, len(text) + 1) for rest in splits(text[i:])]


def splitting_tokenizer() -> VocabularyTokenizer:
    """A vocabulary in which the tags have every tokenisation, also run into what follows."""
    pieces = substrings("</code>") | substrings("</answer>")
    pieces |= {"<code>", "<answer>", "<interpreter>", "</interpreter>", "<tools>"}
    pieces |= {">\n", "e>\n\nSo", "x</code>y", "</code></answer>", "</code> </code>", "r>."}
    pieces |= {"\n", *(chr(code) for code in range(32, 127))}
    return VocabularyTokenizer(tuple(sorted(pieces)))


@dataclasses.dataclass(kw_only=True)
class _Slot:
    script: list[int]
    length: int
    limit: int
    sampled: int = 0
    is_running: bool = True


class ScriptedEngine:
    """Rows follow scripts: {prompt ids: one list of token ids per sample, in order of placement}."""

    def __init__(
        self,
        scripts: dict[tuple[int, ...], list[list[int]]],
        *,
        is_stop: Sequence[bool],
        decode_rows: int = 4,
        cache_rows: int = 0,
        window_steps: int = 4,
        max_tokens: int = 512,
        fetch_s: float = 0.0,
        prefill_chunk: int = 0,
    ):
        self.sharding = single_device()
        self.config = SimpleNamespace(
            decode_rows=decode_rows,
            num_cache_rows=cache_rows or decode_rows,
            max_tokens=max_tokens,
            prefill_chunk=prefill_chunk,
        )
        self.counts = EngineCounts()
        self.windows = 0
        self.reruns = 0
        self.placed_at: list[int] = []  # windows gone by when each row was placed
        self.prefilled: list[tuple[int, ...]] = []
        self.appended: list[tuple[int, ...]] = []
        self.loads: list[tuple[object, int]] = []  # parameters, windows gone by
        self._is_in_flight = False
        self._scripts = {prompt: [list(s) for s in rest] for prompt, rest in scripts.items()}
        self._is_stop = is_stop
        self._window_steps = window_steps
        self._fetch_s = fetch_s
        self._free = list(range(self.config.num_cache_rows))
        self._rows: dict[int, _Slot] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_running(self) -> int:
        return sum(row.is_running for row in self._rows.values())

    @property
    def is_any_running(self) -> bool:
        return self.num_running > 0

    def load(self, params: object) -> None:
        assert not self._is_in_flight, "weights changed inside a window"
        self.loads.append((params, self.windows))

    def has_room(self, prompt_tokens: int) -> bool:
        return bool(self._free)

    def take_cache_row(self, prompt_tokens: int = 1, response_tokens: float = 0.0) -> int:
        return self._free.pop(0)

    def start_prefill(self, prompts: Sequence[Sequence[int]]) -> list[PrefillCall]:
        self.prefilled += [tuple(p) for p in prompts]
        return [
            PrefillCall(
                prompts=(tuple(p),),
                indices=(i,),
                tokens=np.zeros((1, len(p)), np.int32),
                end=len(p),
            )
            for i, p in enumerate(prompts)
        ]

    def advance_prefill(self, call: PrefillCall) -> None:
        call.cache = ()
        call.done += self.config.prefill_chunk or call.end

    def place(self, placements: Sequence[Placement]) -> None:
        for placement in placements:
            assert placement.cache_row not in self._rows, "a cache row was placed twice"
            self.placed_at.append(self.windows)
            script = self._scripts[placement.prompt.ids].pop(0)
            self._rows[placement.cache_row] = _Slot(
                script=script, length=len(placement.prompt.ids), limit=placement.max_length
            )

    def append(self, outputs: dict[int, Sequence[int]]) -> None:
        for cache_row, ids in outputs.items():
            row = self._rows[cache_row]
            assert not row.is_running, "tool tokens for a row that is decoding"
            row.length += len(ids)
            assert row.length < row.limit, "tool tokens beyond the limit of the row"
            row.is_running = True
            self.appended.append(tuple(ids))

    def rerun(self, rows: dict[int, Sequence[int]]) -> None:
        self.append(
            {cache_row: ids[self._rows[cache_row].length :] for cache_row, ids in rows.items()}
        )
        self.reruns += len(rows)

    def resume(self, cache_row: int) -> None:
        self._rows[cache_row].is_running = True

    def release(self, cache_row: int) -> None:
        assert cache_row not in self._free, "a cache row was released twice"
        self._rows.pop(cache_row, None)
        self._free.append(cache_row)

    def is_running(self, cache_row: int) -> bool:
        return self._rows[cache_row].is_running

    def dispatch_window(self, *, others_wait: bool) -> None:
        del others_wait
        self._is_in_flight = True

    def fetch(self, flight: None) -> Window:
        del flight
        time.sleep(self._fetch_s)
        self._is_in_flight = False
        self.windows += 1
        shape = (self._window_steps, self.config.num_cache_rows)
        tokens, logprobs = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        is_sampled = np.zeros(shape, bool)
        # In the order of placement, as the real engine chooses them.
        running = [(cache_row, row) for cache_row, row in self._rows.items() if row.is_running]
        for k in range(self._window_steps):
            for cache_row, row in running[: self.config.decode_rows]:
                if not row.is_running:
                    continue
                assert row.script, "the row was not ended where its script ends"
                tokens[k, cache_row] = row.script.pop(0)
                row.sampled += 1
                row.length += 1
                logprobs[k, cache_row] = -row.sampled / 8
                is_sampled[k, cache_row] = True
                if self._is_stop[tokens[k, cache_row]] or row.length >= row.limit:
                    row.is_running = False
        self.counts.row_steps += self._window_steps * self.config.decode_rows
        self.counts.useful_row_steps += int(is_sampled.sum())
        return Window(
            tokens=tokens, logprobs=logprobs, is_sampled=is_sampled, steps=self._window_steps
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A collector whose policy follows scripts."""

    problems: list[Problem]
    engine: ScriptedEngine
    collector: Collector
    tokenizer: VocabularyTokenizer
    renderer: Renderer

    async def collect(self, samples: int = 1, version: int = 3):
        return await self.collector.collect(
            self.problems,
            samples=samples,
            sampling=Sampling(),
            seed=0,
            stream=("test", 0),
            version=version,
        )


def ids_of(pieces: Sequence[str], tokenizer: VocabularyTokenizer) -> list[int]:
    """One id per piece: the tokenisation is the test's, not the tokenizer's."""
    return [1 if p == EOS else tokenizer.pieces.index(p) + 2 for p in pieces]


def stage(
    scripts: Sequence[Sequence[Sequence[str]]],
    *,
    tool,
    config: RolloutConfig | None = None,
    renderer: str = "arithmetic_tools",
    **engine_options,
) -> Stage:
    """Args: scripts [problem][sample] of pieces; a piece is one token."""
    tokenizer = splitting_tokenizer()
    loaded = load_renderer(renderer)
    problems = [
        Problem(problem_id=f"p{i}", question=f"{i}+1", answer=str(i + 1), level="easy")
        for i in range(len(scripts))
    ]
    table = {
        tuple(loaded.prompt_ids(tokenizer, problem)): [ids_of(s, tokenizer) for s in samples]
        for problem, samples in zip(problems, scripts, strict=True)
    }
    engine = ScriptedEngine(
        table, is_stop=stop_token_mask(tokenizer, loaded.stop_tags), **engine_options
    )
    collector = Collector(
        engine=engine,
        tokenizer=tokenizer,
        renderer=loaded,
        tools=Menu.of_code(tool),
        config=config or RolloutConfig(),
    )
    return Stage(
        problems=problems,
        engine=engine,
        collector=collector,
        tokenizer=tokenizer,
        renderer=loaded,
    )


def run(made: Stage, samples: int = 1) -> list[Trajectory]:
    """Collects, checks every ledger and that nothing stays behind."""
    trajectories = trajectories_of(asyncio.run(made.collect(samples)))
    for trajectory in trajectories:
        trajectory.check()
    assert made.engine.num_free == made.engine.config.num_cache_rows
    return trajectories
