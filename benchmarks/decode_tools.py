"""Parts of benchmarks/decode.py that need no peer: rollouts with tool calls in every way, and overheads.

The policy is random. About one token in 45 is the whole of a call and one in 135 the end, so segments
and answers vary in length and have 0 to 6 calls, the same in every way of running them: outputs depend
on the call alone. Latencies are log-normal, clipped to 0.05-2 s.
"""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxtool.core import rng
from jaxtool.core.types import Problem, ToolResult, ToolStatus, trajectories_of
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.pieces import Placement
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import init_params
from jaxtool.parallel.axis_rules import single_device
from jaxtool.renderers.renderer import Renderer, ToolFormat, stop_token_mask
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.tools.menu import Menu

_FIRST_CALL, _FIRST_END = 300, 400  # ids below 300 are bytes
_CALLS, _ENDS = 61, 30
_RESPONSE = 400

RENDERER = Renderer(
    name="random_calls",
    messages=(("user", "{question}"),),
    uses_chat_template=False,
    response_prefix="",
    tool=ToolFormat(
        code_open="<code>",
        code_close="</code>",
        fence="```",
        observation="[{output}]",
        max_output_chars=40,
        error_style="last_line",
        empty_output="-",
    ),
    answer_close="",
    answer=AnswerFormat(),
)


class RandomCalls:
    """A tokenizer in which some tokens are whole calls and some end the answer."""

    vocab_size = 4096
    eos_ids = tuple(range(_FIRST_END, _FIRST_END + _ENDS))
    pad_id = 0
    start_ids = ()

    def encode(self, text: str) -> list[int]:
        return [byte + 3 for byte in text.encode()]

    @property
    def control_tokens(self) -> dict[int, str]:
        return {}

    def encode_plain(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, token_id: int) -> bytes:
        if _FIRST_CALL <= token_id < _FIRST_CALL + _CALLS:
            return f"<code>{token_id}</code>".encode()
        return b"" if token_id in self.eos_ids else b"a"

    def render_chat(self, messages: Sequence[dict[str, str]], tools: Sequence[object] = ()) -> str:
        return "\n".join(message["content"] for message in messages)


class SlowTool:
    """Answers of 6 to 30 tokens after a log-normal time, the same for the n-th call of a program."""

    def __init__(self, median_s: float):
        self._median_s = median_s
        self._seen: collections.Counter[str] = collections.Counter()
        self.latencies: list[float] = []

    async def execute(self, code: str) -> ToolResult:
        self._seen[code] += 1
        numbers = np.random.default_rng([int(code), self._seen[code]])
        latency = float(np.clip(self._median_s * np.exp(numbers.standard_normal()), 0.05, 2.0))
        self.latencies.append(latency)
        await asyncio.sleep(latency)
        return ToolResult(status=ToolStatus.OK, stdout="x" * (6 + 7 * int(code) % 25))

    async def close(self) -> None:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """A way of running the rollouts."""

    engine: dict[str, int | float]
    rollout: dict[str, str]


_OURS = {
    "decode_rows": 48,
    "cache_rows": 96,
    "min_decode_rows": 4,
    "window_steps": 8,
    "refill_below": 0.9,
}
_PLAIN = {"decode_rows": 48, "window_steps": 8}
WAYS = {
    "ours": Way(engine=_OURS, rollout={}),
    "ours, re-prefill": Way(engine=_OURS, rollout={"kv": "reprefill"}),
    "lock-step, kept": Way(engine=_PLAIN, rollout={"schedule": "lockstep"}),
    "lock-step, re-prefill": Way(
        engine=_PLAIN, rollout={"schedule": "lockstep", "kv": "reprefill"}
    ),
    "ours, cache_rows = decode_rows": Way(engine=_PLAIN, rollout={}),
    "lock-step of 96, kept": Way(
        engine=_PLAIN | {"decode_rows": 96}, rollout={"schedule": "lockstep"}
    ),
    "lock-step of 96, re-prefill": Way(
        engine=_PLAIN | {"decode_rows": 96}, rollout={"schedule": "lockstep", "kv": "reprefill"}
    ),
}
_QUICK = tuple(WAYS)[:4]


def tools(shape: dict[str, int], is_quick: bool, ways: tuple[str, ...] = ()) -> dict[str, Any]:
    """Seconds of each way at each mean latency; the summary is that of the longer latency."""
    model = ModelConfig(**shape)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    count = 96
    out: dict[str, Any] = {}
    for median_s in (0.35,) if is_quick else (0.35, 0.1):
        rows: dict[str, dict[str, Any]] = {}
        first: list[list[int]] = []
        for name in ways or (_QUICK if is_quick else WAYS):
            rows[name], ids = _run(WAYS[name], model, params, median_s, count)
            first = first or ids
            same = [a == b for a, b in zip(ids, first, strict=True)]
            rows[name]["identical_fraction"] = sum(same) / count
            shown = "  ".join(f"{k} {v:.3g}" for k, v in rows[name].items())
            print(f"tools {name}: {shown}", flush=True)
        out[f"median latency {median_s} s"] = rows
    rows = out["median latency 0.35 s"]
    if not ways:
        ours = rows["ours"]
        out["summary"] = {
            "ratio_to_lockstep": _best(rows, "re-prefill") / ours["seconds"],
            "ratio_to_lockstep_kept": _best(rows, "kept") / ours["seconds"],
            "ratio_to_reprefill": rows["ours, re-prefill"]["seconds"] / ours["seconds"],
            "reprefilled_tokens": ours["reprefilled_tokens"],
            "useful_row_steps_fraction": ours["useful_until_queue_empty"],
            "identical_fraction": min(row["identical_fraction"] for row in rows.values()),
        }
    return out


def _best(rows: dict[str, dict[str, Any]], cache: str) -> float:
    """Seconds of the fastest lock-step with this end of its name."""
    return min(
        row["seconds"]
        for name, row in rows.items()
        if name.startswith("lock-step") and name.endswith(cache)
    )


def _run(
    way: Way, model: ModelConfig, params: Any, median_s: float, count: int
) -> tuple[dict[str, Any], list[list[int]]]:
    """Figures of one way, and the tokens of its trajectories."""
    tokenizer = RandomCalls()
    config = EngineConfig(
        max_tokens=512, min_view=128, prefill_rows=8, min_prompt_bucket=16, **way.engine
    )
    engine = DecodeEngine(
        model=model,
        config=config,
        sharding=single_device(),
        is_stop=np.array(stop_token_mask(tokenizer, RENDERER.stop_tags)),
    )
    engine.load(params)
    engine.compile([Sampling()])
    tool = SlowTool(median_s)
    collector = Collector(
        engine=engine,
        tokenizer=tokenizer,
        renderer=RENDERER,
        tools=Menu.of_code(tool),
        config=RolloutConfig(max_response_tokens=_RESPONSE, max_tool_calls=6, **way.rollout),
    )
    problems = [
        Problem(problem_id=f"p{i}", question="q" * (8 + 5 * i % 9), answer="") for i in range(count)
    ]
    collected = asyncio.run(
        collector.collect(
            problems, samples=1, sampling=Sampling(), seed=0, stream=("bench",), version=0
        )
    )
    times, counts = collector.times, engine.counts
    return {
        "seconds": times.total_s,
        "tokens_per_s": counts.sampled_tokens / times.total_s,
        "tokens": counts.sampled_tokens,
        "calls": len(tool.latencies),
        "latency_s": float(np.mean(tool.latencies)),
        "decode_s": times.decode_s,
        "tool_wait_s": times.tool_wait_s,
        "prefill_s": times.prefill_s,
        "steps": counts.steps,
        "useful_row_steps": counts.useful_row_steps / counts.row_steps,
        "useful_until_queue_empty": times.useful_fraction,
        "reprefilled_tokens": counts.reprefilled_tokens,
        "late_programs": counts.late_programs,
    }, [t.ids.tolist() for t in trajectories_of(collected)]


def overheads(shape: dict[str, int]) -> dict[str, Any]:
    """A pause and resume per call; windows against single steps; the set of programs."""
    model = ModelConfig(**shape)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    engine = _plain_engine(model, params, window_steps=32)
    jax.config.update("jax_enable_compilation_cache", False)
    started = time.perf_counter()
    programs = engine.compile([Sampling()])
    compile_s = time.perf_counter() - started
    jax.config.update("jax_enable_compilation_cache", True)
    single = _plain_engine(model, params, window_steps=1)
    whole, steps, paused = [], [], []
    for _ in range(4):  # the first warms up
        whole.append(_decode(engine, 192))
        steps.append(_decode(single, 192))
        paused.append(_decode(engine, 192, pause_every=32))
    whole, steps, paused = whole[1:], steps[1:], paused[1:]
    pauses = 16 * (192 // 32 - 1)
    out = {
        # Of the least of the rounds: other jobs only add, and a pause is a small difference.
        "pause_resume_ms": 1000 * (min(paused) - min(whole)) / pauses,
        "window_over_single_steps": min(steps) / min(whole),
        "programs": programs,
        "compile_s": compile_s,
        "late_programs": engine.counts.late_programs,
    }
    print("overheads " + "  ".join(f"{k} {v:.3g}" for k, v in out.items()), flush=True)
    return out


def _plain_engine(model: ModelConfig, params: Any, window_steps: int) -> DecodeEngine:
    config = EngineConfig(
        decode_rows=16,
        max_tokens=256,
        min_view=256,
        window_steps=window_steps,
        min_prompt_bucket=256,
    )
    engine = DecodeEngine(
        model=model,
        config=config,
        sharding=single_device(),
        is_stop=np.zeros(model.vocab_size, bool),
    )
    engine.load(params)
    return engine


def _decode(engine: DecodeEngine, new: int, pause_every: int = 0) -> float:
    """Seconds of 16 rows; with pauses each row gets its turn's last token from outside."""
    [prompt] = engine.prefill([range(3, 35)])
    cache_rows = [engine.take_cache_row() for _ in range(16)]
    engine.place(
        [
            Placement(cache_row=s, prompt=prompt, row_key=rng.row_key(0, i), max_length=32 + new)
            for i, s in enumerate(cache_rows)
        ]
    )
    started = time.perf_counter()
    if not pause_every:
        while engine.is_any_running:
            engine.fetch(engine.dispatch_window())
    else:
        for turn in range(0, new, pause_every):
            # The limit ends a row's turn, and one token of a tool begins the next.
            engine._rows.max_lengths[cache_rows] = 32 + turn + pause_every
            if turn:
                engine.append({cache_row: [5] for cache_row in cache_rows})
            while engine.is_any_running:
                engine.fetch(engine.dispatch_window())
    seconds = time.perf_counter() - started
    for cache_row in cache_rows:
        engine.release(cache_row)
    return seconds
