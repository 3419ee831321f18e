"""Rollouts that go on while the learner updates: the training thread's side of a `RolloutStream`.

Step t learns exactly the problems of batch t, whole groups, nothing discarded; what refills a batch
(`Selection.max_draws`) is drawn after the batches that are queued by then. After the engine got the
parameters of step t, batches up to t + max_staleness are queued behind those before them. So a row of
batch t begins under version t - max_staleness or later, versions only grow, and a row that decodes through a
swap writes its later tokens with a newer version: every token that step t learns from has a version in
[t - max_staleness, t]. `draw` checks it. The cache of a row is not made anew at a swap: its later
tokens are sampled given keys and values of an older version, and their log-prob is that of the
distribution really sampled from. One version is one rollout batch, whatever its number of mini-batches.

Tokens depend on when a swap falls, hence on the clock: unlike the synchronous run this one does not repeat
bit by bit. What repeats is the problems of each step, also over a kill (refills depend on rewards). Rows
that were on their way are not in a checkpoint: the resumed run asks their problems again, with the same
random keys.
"""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, Self, TypeVar

from jaxtool.core.types import Group, Problem, trajectories_of
from jaxtool.data.batches import ProblemBatches
from jaxtool.model.transformer import Params
from jaxtool.rollout.job import Job
from jaxtool.rollout.lost import ask_lost_again
from jaxtool.rollout.staleness import check_staleness, staleness_metrics
from jaxtool.rollout.stream import RolloutStream
from jaxtool.rundir.live_status import DATA, JUDGE, ROLLOUTS
from jaxtool.train.host_shares import judged_by_all_hosts, own_part
from jaxtool.train.rl_config import RlConfig, validation_sampling
from jaxtool.train.rollout_worker import RolloutWorker
from jaxtool.train.rollouts import OnPolicyRollouts, Rollouts, train_stream

_Result = TypeVar("_Result")
_LOOK_EVERY_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """A batch of problems, and this host's part of it on its way."""

    problems: list[Problem]
    samples: int  # of each problem, over all hosts
    job: Job


class OverlappedRollouts:
    """A context manager: the thread that decodes ends with the block."""

    def __init__(
        self,
        config: RlConfig,
        worker: RolloutWorker,
        batches: ProblemBatches,
        seed: int,
        queued: Sequence[Sequence[Problem]] = (),
    ):
        """Starts no thread. The worker's runner, engine and collector belong to the block.

        Args:
          queued: batches that were drawn before and not learned; see the property.
        """
        self._config, self._worker, self._seed = config, worker, seed
        self._batches = batches
        self._timeline = worker.collector.activity.timeline
        self._redrawn = collections.deque(list(problems) for problems in queued)
        self._asked: dict[int, _Asked] = {}  # by step
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._stream = RolloutStream(worker.collector, worker.runner.get_loop())
        self._running: Future[None] | None = None
        self._waited_s = self._idle_before_s = 0.0

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._worker.runner.run, self._stream.run())
        return self

    def __exit__(self, *raised: object) -> None:
        """Cancels tool calls, waits for the window on the device and frees all cache rows."""
        self._stream.close()
        self._pool.shutdown()

    @property
    def queued(self) -> list[list[Problem]]:
        """Batches that are drawn and not learned, the oldest first: part of a checkpoint."""
        asked = [list(asked.problems) for _, asked in sorted(self._asked.items())]
        return asked + list(self._redrawn)

    def begin_step(self, step: int, params: Params) -> None:
        """Gives the engine the parameters of a step and queues what they may begin.

        Returns after the window on the device, with `params` read: the update may donate them.
        """
        last = min(step + self._config.schedule.max_staleness, self._config.schedule.steps - 1)
        fresh = [later for later in range(step, last + 1) if later not in self._asked]
        problems = [self._next_batch() for _ in fresh]

        def swap() -> list[_Asked]:
            self._load(step, params)
            return [
                self._begin(p, train_stream(s, 0)) for s, p in zip(fresh, problems, strict=True)
            ]

        self._asked |= zip(fresh, self._await(self._stream.between_windows(swap)), strict=True)

    def draw(self, step: int, draw: int) -> list[Group]:
        """Judged groups of a step's batch, in the order of its problems; waits for them.

        Args:
          draw: 0 for the batch itself, then for what refills it, which goes before all that wait.

        Raises:
          RuntimeError: a token is staler than allowed.
        """
        if draw:
            problems, stream = self._next_batch(), train_stream(step, draw)
            begun = self._stream.between_windows(
                lambda: self._begin(problems, stream, is_urgent=True)
            )
            asked = self._await(begun)
        else:
            asked = self._asked[step]
        started = time.monotonic()
        with self._timeline.phase(ROLLOUTS):
            own = self._await(asked.job.finished)
        check_staleness(trajectories_of(own), step, self._config.schedule.max_staleness)
        if not draw:
            del self._asked[step]
        groups = self._judged(asked.problems, asked.samples, own)
        self._waited_s += time.monotonic() - started
        return groups

    def validate(self, problems: Sequence[Problem], version: int, params: Params) -> list[Group]:
        """`Schedule.eval_samples` of each problem by one version of the policy, before all that wait."""

        samples = self._config.schedule.eval_samples
        part = own_part(len(problems), samples, self._config.schedule.share_by)

        def begin(asked: Sequence[Problem], numbers: Sequence[Sequence[int]]) -> Job:
            self._load(version, params)
            return self._worker.collector.begin(
                asked,
                samples=numbers,
                sampling=validation_sampling(self._config),
                seed=self._seed,
                stream=("validation",),
                is_urgent=True,
            )

        def collect(asked: Sequence[Problem], numbers: Sequence[Sequence[int]]) -> list[Group]:
            job = self._await(self._stream.between_windows(lambda: begin(asked, numbers)))
            return self._await(job.finished)

        own = ask_lost_again(collect(part.of(problems), part.numbers), collect)
        return self._judged(problems, samples, own)

    def dispatch(self, call: Callable[[], _Result]) -> _Result:
        """Makes a call that computes for the learner: here, or on several devices where rows decode.

        Two threads could launch collectives in another order on one device than on the next.
        """
        if self._worker.engine.sharding.mesh.size == 1:
            return call()
        return self._await(self._stream.between_windows(call))

    def unload(self) -> None:
        """Rows on their way keep their cache, in this host's memory, and go on with the next parameters."""

        def free() -> None:
            self._stream.pause()
            self._worker.engine.unload(keeps_rows=True)

        self._await(self._stream.between_windows(free))

    def call_tools(self, call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Beside the windows of the stream, in its loop."""
        loop = self._worker.runner.get_loop()
        return self._await(asyncio.run_coroutine_threadsafe(call(), loop))

    def metrics(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Staleness of a step's tokens, and who waited for whom since the last step."""
        waited_s, self._waited_s = self._waited_s, 0.0
        idle_s, self._idle_before_s = (
            self._stream.idle_s - self._idle_before_s,
            self._stream.idle_s,
        )
        return staleness_metrics(trajectories_of(groups), step) | {
            "timing/learner_wait_s": waited_s,
            "timing/decoder_wait_s": idle_s,
        }

    def _judged(
        self, problems: Sequence[Problem], samples: int, own: Sequence[Group]
    ) -> list[Group]:
        """Of all hosts, which meet here: not over the devices, which decode meanwhile."""
        with self._timeline.phase(JUDGE):
            by = self._config.schedule.share_by
            [groups] = judged_by_all_hosts(self._worker.judging, problems, [(samples, own)], by)
            return groups

    def _next_batch(self) -> list[Problem]:
        with self._timeline.phase(DATA):
            return self._redrawn.popleft() if self._redrawn else next(self._batches)

    def _load(self, version: int, params: Params) -> None:
        if version == self._stream.version:
            return
        self._worker.engine.load(params)
        self._stream.version = version
        self._stream.resume()
        self._worker.collector.restart_figures()

    def _begin(
        self, problems: list[Problem], stream: tuple[str | int, ...], *, is_urgent: bool = False
    ) -> _Asked:
        samples = self._config.schedule.samples * self._config.selection.oversampling
        part = own_part(len(problems), samples, self._config.schedule.share_by)
        job = self._worker.collector.begin(
            part.of(problems),
            samples=part.numbers,
            sampling=self._config.sampling,
            seed=self._seed,
            stream=stream,
            is_urgent=is_urgent,
        )
        return _Asked(problems=problems, samples=samples, job=job)

    def _await(self, future: Future[_Result]) -> _Result:
        """Its result; what ended the stream is raised here, with its traceback."""
        assert self._running is not None, "OverlappedRollouts is a context manager"
        either: set[Future[Any]] = {future, self._running}
        # Looked at now and then: a signal that comes just before the wait, or to another thread, does not end it.
        while not wait(either, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED).done:
            continue
        if self._running.done():
            self._running.result()
        return future.result()


def open_rollouts(
    stack: ExitStack,
    config: RlConfig,
    worker: RolloutWorker,
    batches: ProblemBatches,
    seed: int,
    queued: Sequence[Sequence[Problem]],
) -> Rollouts:
    """What `Schedule.max_staleness` asks for: overlapped with updates, or in turns with them."""
    if config.schedule.max_staleness:
        overlapped = OverlappedRollouts(config, worker, batches, seed, queued)
        return stack.enter_context(overlapped)
    return OnPolicyRollouts(
        config=config,
        worker=worker,
        batches=batches,
        seed=seed,
        activity=worker.collector.activity,
    )
