"""Problems in, finished trajectories out: windows of the decoder interleaved with tool calls.

Tool calls run concurrently while other rows decode; a row that waits keeps its slot and its cache.
The result depends on (seed, stream, problem, sample) alone, not on slots, order or tool latency.

Not covered: rewards (see `jaxtool.rewards`), overlap of sampling with updates.
"""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxtool.core import rng
from jaxtool.core.types import FinishReason, Problem, ToolResult, ToolUnavailable, Trajectory
from jaxtool.data.protocol import Protocol, observation_text, parse_code
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.engine import DecodeEngine, Placement, Prefilled
from jaxtool.decode.programs import Window
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.ledger import RowLedger
from jaxtool.tools.base import Tool


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Budgets of a trajectory."""

    max_response_tokens: int = 256  # policy and tool tokens together
    max_tool_calls: int = 3  # observations per trajectory; 3 is OTC-PO's limit for code
    at_tool_limit: Literal["finish", "continue"] = "finish"  # "continue" is ToRL: ignore and go on

    def __post_init__(self) -> None:
        if self.max_response_tokens < 1 or self.max_tool_calls < 0:
            raise ValueError(
                f"{self.max_response_tokens=} must be >= 1, {self.max_tool_calls=} >= 0"
            )
        if self.at_tool_limit not in ("finish", "continue"):
            raise ValueError(f"{self.at_tool_limit=} must be 'finish' or 'continue'")


@dataclasses.dataclass(kw_only=True)
class CollectTimes:
    """Seconds of one collection; `tool_wait` is time in which no row could decode."""

    total_s: float = 0.0
    decode_s: float = 0.0
    tool_wait_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Observation:
    row: RowLedger
    code: str
    result: ToolResult | None  # None: the infrastructure failed


class Collector:
    """Runs one set of problems at a time on one engine."""

    def __init__(
        self,
        *,
        engine: DecodeEngine,
        tokenizer: Tokenizer,
        protocol: Protocol,
        tool: Tool | None,
        config: RolloutConfig,
    ):
        if protocol.tool is not None and tool is None:
            raise ValueError(f"protocol {protocol.name!r} has a tool format but no tool was given")
        self.engine = engine
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.tool = tool
        self.config = config
        self.times = CollectTimes()
        self._rows: dict[int, RowLedger] = {}
        self._tasks: set[asyncio.Task[_Observation]] = set()
        self._done: dict[tuple[str, int], Trajectory] = {}
        self._fetching: asyncio.Future[Window] | None = None

    async def collect(
        self,
        problems: Sequence[Problem],
        *,
        samples: int,
        sampling: Sampling,
        seed: int,
        stream: Sequence[str | int],
        version: int,
    ) -> list[Trajectory]:
        """`samples` trajectories per problem, in the order (problem, sample).

        Args:
          stream: names the random stream, for example ("train", step).
          version: learner step of the parameters in the engine, written beside every token.
        """
        started = time.monotonic()
        self.times = CollectTimes()
        self._done = {}
        prompts = [self.protocol.prompt_ids(self.tokenizer, problem) for problem in problems]
        self._check_fit(prompts)
        queue = collections.deque((i, s) for i in range(len(problems)) for s in range(samples))
        prefilled: dict[int, Prefilled] = {}
        try:
            while queue or self._rows:
                self._admit(problems, prompts, queue, prefilled, seed, stream)
                await self._advance(sampling, version)
        finally:
            await self._abandon()
        self.times.total_s = time.monotonic() - started
        return [self._done[p.problem_id, s] for p in problems for s in range(samples)]

    def _admit(
        self,
        problems: Sequence[Problem],
        prompts: Sequence[list[int]],
        queue: collections.deque[tuple[int, int]],
        prefilled: dict[int, Prefilled],
        seed: int,
        stream: Sequence[str | int],
    ) -> None:
        """Fills free slots from the queue; a prompt runs once, for all samples of its problem."""
        admitted = [queue.popleft() for _ in range(min(self.engine.num_free, len(queue)))]
        fresh = sorted({i for i, _ in admitted} - set(prefilled))
        for i, prompt in zip(fresh, self.engine.prefill([prompts[i] for i in fresh]), strict=True):
            prefilled[i] = prompt
        placements = []
        for i, sample in admitted:
            slot = self.engine.take_slot()
            limit = len(prompts[i]) + self.config.max_response_tokens
            self._rows[slot] = RowLedger(
                problem=problems[i], sample=sample, slot=slot, limit=limit, prompt=prompts[i]
            )
            key = rng.row_key(seed, *stream, problems[i].problem_id, sample)
            placements.append(Placement(slot=slot, prompt=prefilled[i], row_key=key, limit=limit))
        self.engine.place(placements)
        waiting = {i for i, _ in queue}
        for i in [i for i in prefilled if i not in waiting]:
            del prefilled[i]

    def _check_fit(self, prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts), default=0)
        limit = longest + self.config.max_response_tokens
        if limit > self.engine.config.max_tokens:
            raise ValueError(
                f"a prompt of {longest} tokens and max_response_tokens="
                f"{self.config.max_response_tokens} exceed EngineConfig.max_tokens="
                f"{self.engine.config.max_tokens}: raise it to {limit} or more"
            )

    async def _advance(self, sampling: Sampling, version: int) -> None:
        """One window, or a wait for a tool when no row can decode; then what came back."""
        started = time.monotonic()
        if self.engine.is_any_running:
            handle = self.engine.dispatch_window(sampling)
            # In a thread, so that tool calls go out and come in while the device works.
            fetch = asyncio.to_thread(self.engine.fetch, *handle)
            self._fetching = asyncio.ensure_future(fetch)
            # Shielded: a thread cannot be cancelled, so `_abandon` must be able to wait for it.
            log = await asyncio.shield(self._fetching)
            self._fetching = None
            self.times.decode_s += time.monotonic() - started
            self._consume(log, version)
            await asyncio.sleep(0)
        elif self._tasks:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self.times.tool_wait_s += time.monotonic() - started
        self._observe([task for task in self._tasks if task.done()])

    def _consume(self, log: Window, version: int) -> None:
        for slot, row in list(self._rows.items()):
            steps = np.flatnonzero(log.is_sampled[:, slot])
            if not steps.size:
                continue
            row.add_policy(
                log.tokens[steps, slot].tolist(), log.logprobs[steps, slot].tolist(), version
            )
            if not self.engine.is_running(slot):
                self._look_at(row)

    def _look_at(self, row: RowLedger) -> None:
        """Decides why a row stopped: a tag, the end token, the budget, or nothing at all."""
        tag, end = self._next_tag(row)
        if tag:
            row.handled = end
        if tag and tag == self.protocol.answer_close:
            self._finish(row, FinishReason.ANSWER)
        elif row.ids[-1] in self.tokenizer.eos_ids:
            self._finish(row, FinishReason.EOS)
        elif tag:
            self._call(row)
        elif row.room <= 0:
            self._finish(row, FinishReason.LENGTH)
        else:
            self.engine.resume(row.slot)

    def _next_tag(self, row: RowLedger) -> tuple[str, int]:
        """First unhandled closing tag in the policy's segment and the byte after it."""
        segment = row.decode_segment(self.tokenizer)
        found = []
        for tag in self.protocol.stop_tags:
            at = segment.find(tag.encode(), row.handled)
            if at >= 0:
                found.append((at, tag))
        if not found:
            return "", 0
        at, tag = min(found)
        return tag, at + len(tag.encode())

    def _call(self, row: RowLedger) -> None:
        """Starts a tool call, or refuses one that is over a budget or has nothing to run."""
        assert self.protocol.tool is not None
        segment = bytes(row.segment[: row.handled]).decode("utf-8", errors="replace")
        code = parse_code(segment, self.protocol.tool)
        over_limit = len(row.calls) >= self.config.max_tool_calls
        if code and row.room > 0 and not over_limit:
            self._tasks.add(asyncio.create_task(self._run_tool(row, code)))
            return
        row.unexecuted_calls += 1
        if row.room <= 0:
            self._finish(row, FinishReason.LENGTH)
        elif over_limit and self.config.at_tool_limit == "finish":
            self._finish(row, FinishReason.TOOL_LIMIT)
        else:
            self._look_at(row)  # the same token may carry a second tag

    async def _run_tool(self, row: RowLedger, code: str) -> _Observation:
        assert self.tool is not None
        try:
            return _Observation(row, code, await self.tool.execute(code))
        except ToolUnavailable:
            return _Observation(row, code, None)

    def _observe(self, tasks: Sequence[asyncio.Task[_Observation]]) -> None:
        """Puts finished tool outputs behind their rows."""
        outputs: dict[int, Sequence[int]] = {}
        for task in tasks:
            self._tasks.remove(task)
            observation = task.result()
            row = observation.row
            if observation.result is None:
                row.unexecuted_calls += 1
                self._finish(row, FinishReason.INFRASTRUCTURE)
                continue
            ids = self.tokenizer.encode(observation_text(observation.result, self.protocol))
            is_full = len(ids) >= row.room
            ids = ids[: row.room]
            row.add_observation(observation.code, observation.result, ids)
            if is_full:
                self._finish(row, FinishReason.LENGTH)
            else:
                outputs[row.slot] = ids
        self.engine.append(outputs)

    def _finish(self, row: RowLedger, reason: FinishReason) -> None:
        trajectory = row.freeze(reason, self.tokenizer)
        self._done[row.problem.problem_id, row.sample] = trajectory
        self.engine.release(row.slot)
        del self._rows[row.slot]

    async def _abandon(self) -> None:
        """After an error or Ctrl-C: no task and no slot stays behind."""
        for task in self._tasks:
            task.cancel()
        if self._fetching is not None:  # its results must not land in slots that are free again
            await asyncio.wait([self._fetching])
            self._fetching = None
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for slot in list(self._rows):
            self.engine.release(slot)
            del self._rows[slot]
