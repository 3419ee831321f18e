"""Problems in, finished trajectories out: windows of the decoder interleaved with tool calls.

Tool calls run concurrently while other rows decode; a row that waits keeps its cache row and its cache.
The result depends on (seed, stream, problem, sample) alone, not on cache rows, order or tool latency, and
not on the two switches that make the decoder do what others do, for comparison.

Not covered: rewards (see `jaxtool.rewards`), updates while rows decode (see `stream`).
"""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import FinishReason, Group, Problem
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.programs import Window
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.renderer import Renderer, notice_ids, observation_ids
from jaxtool.rollout import job_rows
from jaxtool.rollout.activity import PREFILL, TOOL_WAIT, WINDOW, Activity
from jaxtool.rollout.admission import Admission, ExpectedLengths, UsefulSteps
from jaxtool.rollout.call_rules import AtToolLimit, CallRules, Notice, OnInvalidCall
from jaxtool.rollout.collect_times import CollectTimes
from jaxtool.rollout.job import Job
from jaxtool.rollout.live_sample import LiveSample
from jaxtool.rollout.prompt_lengths import LongPrompts, check_prompts_fit
from jaxtool.rollout.tool_task import Observation, run_call
from jaxtool.rundir.rollout_journal import RolloutJournal
from jaxtool.rundir.stopping import NEVER
from jaxtool.tools.menu import Menu

Kv = Literal["kept", "reprefill"]
Schedule = Literal["continuous", "lockstep"]
_CHOICES = {
    "at_tool_limit": AtToolLimit,
    "invalid_calls": OnInvalidCall,
    "long_prompts": LongPrompts,
    "kv": Kv,
    "schedule": Schedule,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Budgets of a trajectory."""

    max_response_tokens: int = 256  # policy and tool tokens together
    max_tool_calls: int = 3  # observations per trajectory; 3 is OTC-PO's limit for code
    # A call beyond them: ends the response; is ignored, as in ToRL; or is told that no calls are left, once,
    # so that an answer follows, as in Search-R1.
    at_tool_limit: AtToolLimit = "finish"
    # A call that cannot be made (no JSON, no such tool, a missing argument): the policy reads why; the response
    # ends; or it goes on as if nothing had been written.
    invalid_calls: OnInvalidCall = "observe"
    max_consecutive_invalid_calls: int = 3  # one more ends the response
    # Problems whose prompt leaves less than max_response_tokens of EngineConfig.max_tokens, looked for
    # before the first step: an error, or left out and counted.
    long_prompts: LongPrompts = "refuse"
    # For comparison only. "reprefill" runs the whole row again after each call; "lockstep" decodes a
    # batch until every row of it has stopped, then runs their tools, and takes no row in between.
    kv: Kv = "kept"
    schedule: Schedule = "continuous"

    def __post_init__(self) -> None:
        if self.max_response_tokens < 1 or self.max_tool_calls < 0:
            raise ValueError(
                f"{self.max_response_tokens=} must be >= 1, {self.max_tool_calls=} >= 0"
            )
        if self.max_consecutive_invalid_calls < 0:
            raise ValueError(f"{self.max_consecutive_invalid_calls=} must be >= 0")
        for name, kind in _CHOICES.items():
            value, choices = getattr(self, name), [repr(choice) for choice in get_args(kind)]
            if repr(value) not in choices:
                wanted = " or ".join(", ".join(choices).rsplit(", ", 1))
                raise ValueError(f"RolloutConfig.{name}={value!r} must be {wanted}")

    @property
    def call_rules(self) -> CallRules:
        names = [field.name for field in dataclasses.fields(CallRules)]
        return CallRules(**{name: getattr(self, name) for name in names})


class Collector:
    """Answers problems on one engine: one set at a time with `collect`, or several with `begin`."""

    def __init__(
        self,
        *,
        engine: DecodeEngine,
        tokenizer: Tokenizer,
        renderer: Renderer,
        tools: Menu,
        config: RolloutConfig,
        activity: Activity | None = None,
    ):
        """`activity` is told what goes on."""
        if renderer.tool is not None and not tools.specs:
            raise ValueError(f"renderer {renderer.name!r} has a tool format but no tool was given")
        self.engine = engine
        self.tokenizer = tokenizer
        self.renderer = renderer
        self.tools = tools
        self.config, self._rules = config, config.call_rules
        self.activity = activity or Activity()
        self.stop = NEVER  # asked between windows
        self.journal: RolloutJournal | None = None  # of finished answers
        self.times = CollectTimes()
        self.group_order: list[str] = []  # problem ids as their groups were complete
        self._started = time.monotonic()
        self._expected = ExpectedLengths()
        self._admission = Admission(engine, self._expected)
        self._useful = UsefulSteps(engine.counts)
        self._numbers = itertools.count()  # of prompts
        self._rows: dict[int, LiveSample] = {}  # by cache row
        self._calls: list[tuple[LiveSample, Call]] = []  # for the end of a lock-step batch
        self._tasks: set[asyncio.Task[Observation]] = set()
        self._told: dict[int, Sequence[int]] = {}  # by cache row: texts to be put behind it
        self._closing: set[asyncio.Task[None]] = set()  # sessions of rows that have ended
        self._fetching: asyncio.Future[Window] | None = None

    async def collect(
        self,
        problems: Sequence[Problem],
        *,
        samples: int | Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        stream: Sequence[str | int],
        version: int,
    ) -> list[Group]:
        """A group of each problem, in their order, of `samples` rollouts or of those with these numbers.

        Args:
          stream: names the random stream, for example ("train", step).
          version: learner step of the parameters in the engine, stored with every token.
        """
        if self.has_work:
            raise RuntimeError("this collector is answering other problems")
        self.restart_figures()
        job = self.begin(problems, samples=samples, sampling=sampling, seed=seed, stream=stream)
        try:
            with job_rows.woken_by(self.stop) as wake:
                while not job.is_done:
                    self.stop.check()
                    await self.advance(version, wake)
        finally:
            await self.abandon()
        self.times.total_s = time.monotonic() - self._started
        return job.groups()

    @property
    def has_work(self) -> bool:
        return not self._admission.is_queue_empty or bool(self._rows)

    @property
    def live(self) -> tuple[LiveSample, ...]:
        """Samples that have a cache row, for those who watch them."""
        return tuple(self._rows.values())

    @property
    def _has_slots_for_all(self) -> bool:
        """No row waits for a place in the cache, nor, with more cache rows than decode rows, for a decode row.

        Rows that wait for a tool want no decode row; those whose prompt is on its way do.
        """
        wanted = self.engine.num_running + self._admission.num_without_prompt
        return self._admission.is_queue_empty and wanted <= self.engine.config.decode_rows

    def restart_figures(self) -> None:
        self.times = CollectTimes()
        self.group_order = []
        self._started = time.monotonic()
        self._useful = UsefulSteps(self.engine.counts)

    def begin(
        self,
        problems: Sequence[Problem],
        *,
        samples: int | Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        stream: Sequence[str | int],
        is_urgent: bool = False,
    ) -> Job:
        """Queues the rows of a set of problems behind those of earlier sets; `advance` runs them.

        Args:
          is_urgent: they go before all that wait.
        """
        job = Job(problems, samples, tuple(stream))
        prompts = [self.renderer.prompt_ids(self.tokenizer, problem) for problem in problems]
        check_prompts_fit(
            problems, prompts, self.config.max_response_tokens, self.engine.config.max_tokens
        )
        # What an earlier process finished is taken from it; the rest is queued, the longest first.
        there = job_rows.take_read_back(job, prompts, self.journal)
        job_rows.count_read_back(there, self.engine.counts, self.tools, self._expected)
        queued = job_rows.rows_to_draw(
            job,
            prompts,
            [next(self._numbers) for _ in problems],
            self._expected.order(problems),
            max_response_tokens=self.config.max_response_tokens,
            sampling=sampling,
            seed=seed,
            renderer=self.renderer,
            tools=self.tools,
        )
        self._admission.add(queued, is_urgent=is_urgent)
        self.activity.ask(stream, len(queued) + len(there), len(there))
        return job

    async def advance(self, version: int, wake: asyncio.Future[None] | None = None) -> None:
        """Admits rows and runs one window, or waits for a tool where no row can decode.

        Args:
          version: learner step of the parameters in the engine; they must stay until this returns.
          wake: ends such a wait when it is done.
        """
        self._admit()
        if self._has_slots_for_all:
            self._useful.stop()
        await self._decode_or_wait(version, wake)
        self.times.useful_fraction = self._useful.fraction

    def _admit(self) -> None:
        """Gives free cache rows to the next rows and runs the prompts that they need."""
        started = time.monotonic()
        if self.config.schedule == "continuous" or not self._rows:
            self._rows |= {sample.cache_row: sample for sample in self._admission.take()}
        self._admission.advance()
        self.times.prefill_s += self.activity.took(PREFILL, started)

    async def _decode_or_wait(self, version: int, wake: asyncio.Future[None] | None) -> None:
        """One window, or a wait for a tool when no row can decode; then what came back."""
        started = time.monotonic()
        if self.engine.is_any_running:
            others_wait = not self._admission.is_queue_empty or bool(self._tasks)
            flight = self.engine.dispatch_window(others_wait=others_wait)
            # In a thread, so that tool calls go out and come in while the device works.
            fetch = asyncio.to_thread(self.engine.fetch, flight)
            self._fetching = asyncio.ensure_future(fetch)
            # Shielded: a thread cannot be cancelled, so `abandon` must be able to wait for it.
            log = await asyncio.shield(self._fetching)
            self._fetching = None
            self.times.decode_s += self.activity.took(WINDOW, started)
            self._consume(log, version)
            await asyncio.sleep(0)
        elif self._calls or self._tasks:
            self._start_calls()
            is_lockstep = self.config.schedule == "lockstep"
            until = asyncio.ALL_COMPLETED if is_lockstep else asyncio.FIRST_COMPLETED
            also = () if wake is None or is_lockstep else (wake,)
            await asyncio.wait({*self._tasks, *also}, return_when=until)
            self.times.tool_wait_s += self.activity.took(TOOL_WAIT, started)
        self._observe([task for task in self._tasks if task.done()])

    def _consume(self, log: Window, version: int) -> None:
        for cache_row, row in list(self._rows.items()):
            steps = np.flatnonzero(log.is_sampled[:, cache_row])
            if not steps.size:
                continue
            self.activity.sample(steps.size)
            row.add_policy(
                log.tokens[steps, cache_row].tolist(),
                log.logprobs[steps, cache_row].tolist(),
                version,
            )
            if not self.engine.is_running(cache_row):
                self._look_at(row)

    def _look_at(self, row: LiveSample) -> None:
        """Decides why a row stopped: a tag that counts, the end token, the budget, or nothing at all.

        A tag that does not count (in a string of an open program) is nothing: the row goes on with its
        cache.
        """
        stop = row.next_stop(self.tokenizer)
        if stop is not None and stop.kind == "answer":
            self._finish(row, FinishReason.ANSWER)
        elif row.has_ended(self.tokenizer) and (stop is None or not self.renderer.ends_by_turn):
            self._finish(row, FinishReason.EOS)
        elif stop is not None:
            self._call(row, stop.call)
        elif row.room <= 0:
            self._finish(row, FinishReason.LENGTH)
        else:
            self.engine.resume(row.cache_row)

    def _call(self, row: LiveSample, call: Call | InvalidCall | None) -> None:
        """Starts a tool call, or does what the rules say in its place."""
        call = self.tools.checked(call) if isinstance(call, Call) else call
        if isinstance(call, InvalidCall):
            self.tools.count_invalid(call)
            row.invalid_tools.append(call.tool)
        following = self._rules.after(row, call)
        if isinstance(following, FinishReason):
            self._finish(row, following)
        elif isinstance(following, Notice):
            self._tell(row, following.text)
        elif following is None:
            self._look_at(row)  # the same token may carry a second tag
        else:
            row.end_span("generate")
            self._calls.append((row, following))
            self.activity.call()
            if self.config.schedule != "lockstep":
                self._start_calls()

    def _tell(self, row: LiveSample, text: str) -> None:
        """A text of ours where an observation would stand; the row goes on behind it."""
        ids = notice_ids(self.tokenizer, text, self.renderer)[: row.room]
        row.add_notice(ids)
        if row.room <= 0:
            self._finish(row, FinishReason.LENGTH)
        else:
            self._told[row.cache_row] = ids

    def _start_calls(self) -> None:
        self._tasks |= {asyncio.create_task(run_call(*call)) for call in self._calls}
        self._calls = []

    def _observe(self, tasks: Sequence[asyncio.Task[Observation]]) -> None:
        """Puts finished tool outputs behind their rows."""
        outputs, self._told = self._told, {}
        for task in tasks:
            self._tasks.remove(task)
            self.activity.called()
            observation = task.result()
            row = observation.row
            if observation.result is None:
                row.unexecuted_calls += 1
                self._finish(row, FinishReason.INFRASTRUCTURE, observation.call.tool)
                continue
            ids = observation_ids(
                self.tokenizer,
                observation.result,
                self.renderer,
                tool=observation.call.tool,
                max_tokens=self.tools.observation_tokens(observation.call.tool),
            )
            is_full = len(ids) >= row.room
            ids = ids[: row.room]
            row.add_observation(observation.call, observation.result, ids)
            if is_full:
                self._finish(row, FinishReason.LENGTH)
            else:
                outputs[row.cache_row] = ids
        if self.config.kv == "kept":
            self.engine.append(outputs)
        else:
            self.engine.rerun({cache_row: self._rows[cache_row].ids for cache_row in outputs})

    def _finish(self, row: LiveSample, reason: FinishReason, lost_to: str = "") -> None:
        problem_id = row.problem.problem_id
        self._expected.add(problem_id, len(row.ids) - len(row.prompt))
        self.engine.release(row.cache_row)
        del self._rows[row.cache_row]
        self._close_sessions(row)
        trajectory = row.freeze(reason, self.tokenizer, lost_to)
        if self.journal is not None:
            self.journal.add(row.job.stream, trajectory, job_rows.extra_of(row))
        if row.job.add(row.index, trajectory, row.times):
            self.group_order.append(problem_id)
            self.times.groups_s.append(time.monotonic() - self._started)
        self.activity.answer(row)

    def _close_sessions(self, row: LiveSample) -> None:
        """In the background: the other rows go on."""
        if row.sessions.is_any_open:
            task = asyncio.create_task(row.sessions.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def abandon(self) -> None:
        """After an error, Ctrl-C or the last row: no queue, task, session or cache row stays behind."""
        for task in self._tasks:
            task.cancel()
        # Its results must not land in cache rows that are free again.
        if self._fetching is not None:
            await asyncio.wait([self._fetching])
            self._fetching = None
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._calls.clear()
        self._told.clear()
        self.activity.abandon()
        for cache_row, row in list(self._rows.items()):
            self._close_sessions(row)
            self.engine.release(cache_row)
            del self._rows[cache_row]
        self._admission = Admission(self.engine, self._expected)
        await asyncio.gather(*self._closing, return_exceptions=True)
