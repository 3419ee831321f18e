"""An evaluation in a work directory: answers to every question by every policy, in chunks that a kill cannot lose.

The same command goes on where it stopped, asks again for what the infrastructure lost, and ends with the same records
as without a stop, times apart. One command at a time; of several hosts each answers its share of the chunks, and all of
them see the directory. Not covered: what is asked (`evaluation_plan`), figures.
"""

import asyncio
import dataclasses
import time
from asyncio import Runner
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from jax.sharding import Mesh

from jaxtool.core.types import Group, samples_of
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.data.tokenizer import decode as decode_ids
from jaxtool.judges.references import check_references
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.rollout.chunks import Asking, answer_chunks
from jaxtool.rollout.collector import Collector
from jaxtool.rundir import answer_files
from jaxtool.rundir.answer_files import Condition
from jaxtool.rundir.answer_records import AnswerRecord, read_records, record_of
from jaxtool.rundir.progress import ProgressDisplay, progress_of
from jaxtool.rundir.run_start import Identity, Launch, check_start, open_start
from jaxtool.rundir.stopping import StopNotice
from jaxtool.rundir.workdir import hold_workdir
from jaxtool.study.evaluation_plan import MAY_CHANGE, EvaluationPlan
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.menu import Menu
from jaxtool.train.devices import make_shardings
from jaxtool.train.rollout_worker import RolloutWorker, open_worker
from jaxtool.train.skipped_updates import check_sampled
from jaxtool.train.tool_checks import check_known

_SEEN_S = 90.0  # above what NFS keeps a listing for
STREAM = ("test",)  # of every condition: budgets and tools are compared on common random numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """Chunks of one policy under one condition that are to be answered."""

    policy: str
    condition: Condition
    missing: tuple[int, ...]  # not written yet
    broken: tuple[int, ...]  # written, with answers that were lost


def run_evaluation(
    plan: EvaluationPlan,
    workdir: Path,
    *,
    launch: Launch | None = None,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
    tool: CodeRunner | None = None,
    mesh: Mesh | None = None,
) -> None:
    """Answers what is missing in the work directory, which is made.

    Args:
      tool: runs programs in place of a sandbox; the caller closes it.
      mesh: in place of the one that the configuration makes of all devices.

    Raises:
      ValueError: another evaluation is there, with what differs; another process works there; a policy is
        another model than the first one, ...; one line.
      OSError: the disk is full, ...; the chunks that were written stay.
    """
    settings = plan.settings
    steps = settings.chunks * len(settings.conditions) * len(settings.policies)
    identity = Identity(config=plan.identity, seed=settings.seed, init_from=None, steps=steps)
    launch = launch or Launch()
    with hold_workdir(workdir), StopNotice(workdir, keeps="finished chunks") as stop:
        # 1) Is it this evaluation's directory, and what is left to do?
        def looked() -> list[Work]:
            check_start(workdir, identity, identity.settings(launch.origin), MAY_CHANGE)
            return [work for work in _works(plan, workdir) if work.missing or work.broken]

        works = hosts.agree(looked)
        if not works and hosts.agree((workdir / answer_files.SETTINGS).is_file):
            # The allowed share of lost answers may be another.
            hosts.agree(partial(settings.write, workdir))
            return
        judge = check_references(plan.config.judge, plan.questions)
        if hosts.is_first():
            print(f"judge: {judge}", flush=True)
        with (
            open_start(workdir, identity, launch=launch, may_change=MAY_CHANGE) as start,
            ExitStack() as stack,
        ):
            # 2) Weights, engine, tools: whatever is wrong with them is found before the directory is claimed.
            opened = partial(
                open_worker,
                sandbox_addresses=sandbox_addresses,
                tool=tool,
                text=plan.text,
                search_addresses=search_addresses,
                further_stops=plan.tool_free.stop_tags if plan.tool_free else (),
            )
            answering = _Answering(stack, plan, workdir, opened, mesh, stop)
            answering.load(works[0].policy)
            hosts.agree(partial(settings.write, workdir))
            start.begin(steps - sum(len(work.missing) for work in works))
            # 3) Policy by policy, condition by condition.
            for work in works:
                answering.load(work.policy)
                answering.answer(work)
            hosts.agree(partial(_wait_until_seen, plan, workdir))
            start.finish()


def _wait_until_seen(plan: EvaluationPlan, workdir: Path) -> None:
    """Raises OSError if this host does not see what the others wrote; a file server may show it late."""
    until = time.monotonic() + _SEEN_S
    while any(work.missing for work in _works(plan, workdir)):
        if time.monotonic() > until:
            raise OSError(
                f"{workdir} lacks chunks that other hosts wrote {_SEEN_S:.0f} s ago: all hosts must see one directory"
            )
        time.sleep(1)


def _works(plan: EvaluationPlan, workdir: Path) -> list[Work]:
    settings = plan.settings
    works = []
    for policy in settings.policies:
        for condition in settings.conditions:
            missing = answer_files.missing_chunks(workdir, settings, policy, condition)
            written = [chunk for chunk in range(settings.chunks) if chunk not in set(missing)]
            lost = answer_files.chunks_with_lost(workdir, policy, condition, written)
            works.append(
                Work(policy=policy, condition=condition, missing=tuple(missing), broken=tuple(lost))
            )
    return works


class _Answering:
    """An engine with its tools, and the policy that it holds."""

    def __init__(
        self,
        stack: ExitStack,
        plan: EvaluationPlan,
        workdir: Path,
        opened: Callable[..., tuple[RolloutWorker, Params]],
        mesh: Mesh | None,
        stop: StopNotice,
    ):
        self._plan, self._workdir, self._stop = plan, workdir, stop
        self._policy: str | None = None
        self._runner = stack.enter_context(Runner())
        first = next(iter(plan.sources.values()))
        self._sharding, _ = make_shardings(plan.config, first.model_config(), mesh)
        self._open = partial(opened, stack, self._runner, plan.config)
        self._worker: RolloutWorker | None = None
        self._rounds = 0  # of known answers

    @property
    def worker(self) -> RolloutWorker:
        assert self._worker is not None
        return self._worker

    def load(self, policy: str) -> None:
        """Puts the weights of a policy into the engine, which is opened for the first one."""
        if policy == self._policy:
            return
        self._stop.check()
        source, seed = self._plan.sources[policy], self._plan.settings.seed
        if self._worker is None:
            self._worker, params = self._open(source, self._sharding, seed)
            self._worker.engine.load(params)
            samplings = {self._plan.sampling(one) for one in self._plan.settings.conditions}
            with progress_of("compile decoder") as report:
                self._worker.compile(report, *sorted(samplings, key=lambda one: one.temperature))
        else:
            _, params = source.load(self._sharding, seed)
            self._worker.engine.load(params)
        self._policy = policy

    def answer(self, work: Work) -> None:
        """Decodes, judges and writes the chunks of a work."""
        plan, settings, condition = self._plan, self._plan.settings, work.condition
        samples = condition.samples(settings.samples)
        before = {
            chunk: read_records(self._path(work, chunk)) for chunk in work.broken
        }  # a few: most chunks lose nothing
        chunks = {}
        for chunk in hosts.share(sorted((*work.missing, *work.broken))):
            lost = {r.problem_id for r in before.get(chunk, ()) if r.is_lost}
            asked = plan.chunk(chunk)
            chunks[chunk] = [p for p in asked if p.problem_id in lost] if lost else asked
        collector = self._collector(condition)
        own = sum(len(part) for part in chunks.values()) * samples
        total = settings.questions * samples if hosts.is_single() else own
        done = total - own
        shown = _Shown(collector, f"{work.policy} {condition.name}", total, done)

        async def write(chunk: int, groups: list[Group]) -> None:
            check_sampled(groups, f"{work.policy}, {condition.name}")
            # In a thread: a judge may run programs, which this loop does.
            judged = await asyncio.to_thread(self.worker.judging.judged, groups)
            await self._check_known_answers()
            records = self._records(work, judged)
            if chunk in before:
                records = _with_second_try(before[chunk], records)
            answer_files.write_chunk(self._workdir, work.policy, condition, chunk, records)
            shown.add(records)

        with shown:
            self._runner.run(
                answer_chunks(
                    collector,
                    chunks,
                    Asking(
                        samples=samples,
                        sampling=plan.sampling(condition),
                        seed=settings.seed,
                        stream=STREAM,
                    ),
                    on_chunk=write,
                    on_window=shown.update,
                )
            )
        hosts.exchange(None)  # the next weights are read by all hosts together

    async def _check_known_answers(self) -> None:
        """Nothing is written that a server which answers wrongly may have had a part in."""
        if self.worker.known_answers is not None:
            self._rounds += 1
            check_known(await self.worker.known_answers.ask(self._rounds))

    def _collector(self, condition: Condition) -> Collector:
        """On the same engine, with the prompt and the budget of a condition."""
        own = self.worker.collector
        tool_free = None if condition.has_tools else self._plan.tool_free
        collector = Collector(
            engine=own.engine,
            tokenizer=own.tokenizer,
            renderer=tool_free or own.renderer,
            tools=Menu() if tool_free else own.tools,
            config=dataclasses.replace(own.config, max_tool_calls=condition.max_tool_calls),
        )
        collector.stop = self._stop
        return collector

    def _records(self, work: Work, groups: Sequence[Group]) -> list[AnswerRecord]:
        text_of = _text_of(self.worker.tokenizer)
        condition = work.condition
        return [
            record_of(
                sample,
                text_of,
                policy=work.policy,
                has_tools=condition.has_tools,
                max_tool_calls=condition.max_tool_calls,
                sampling=condition.sampling,
            )
            for sample in samples_of(groups)
        ]

    def _path(self, work: Work, chunk: int) -> Path:
        return answer_files.chunk_path(self._workdir, work.policy, work.condition, chunk)


class _Shown:
    """Progress of one condition of one policy."""

    def __init__(self, collector: Collector, title: str, total: int, done: int):
        self._collector, self._done = collector, done
        self._display = ProgressDisplay(title, total, initial=done)
        self._calls = self._lost = 0
        self._tokens = collector.engine.counts.sampled_tokens
        self._started = time.monotonic()

    def __enter__(self) -> "_Shown":
        self._display.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._display.__exit__(*raised)

    def add(self, records: Sequence[AnswerRecord]) -> None:
        """A chunk is written."""
        self._done += len(records)
        self._calls += sum(record.num_calls for record in records)
        self._lost += sum(record.is_lost for record in records)

    def update(self, answers: int) -> None:
        """A window is over; `answers` more are there and not written yet."""
        seconds = time.monotonic() - self._started
        tokens = self._collector.engine.counts.sampled_tokens - self._tokens
        figures: dict[str, float | str] = {"calls": str(self._calls), "tok/s": tokens / seconds}
        if self._lost:
            figures["lost"] = str(self._lost)
        self._display.update(self._done + answers, figures)


def _text_of(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
    return partial(decode_ids, tokenizer)


def _with_second_try(
    before: Sequence[AnswerRecord], again: Sequence[AnswerRecord]
) -> list[AnswerRecord]:
    """The records, with each lost one replaced by its second try, which may be lost again."""
    found = {(record.problem_id, record.sample): record for record in again}
    return [
        found[record.problem_id, record.sample] if record.is_lost else record for record in before
    ]
