"""Checks candidates for demonstrations, step by step, and says of each that falls out at which and why.

Steps, in ReTool's order with more of them (section 2.2): 1. text and form, 2. every program run, 3. the
answer by the run's judge, 4. repetitions, 5. questions of evaluation sets. Not covered: where candidates
come from (`rewriting`, `files`), what is printed (`summary`).
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence

from jaxtool.cold_start.candidates import Candidate, Checked, Demonstration, Rejection, StepName
from jaxtool.cold_start.plain_replies import check_plain
from jaxtool.cold_start.repeated import contamination, repetitions
from jaxtool.cold_start.running import RunSettings, Sandbox, run_trace
from jaxtool.cold_start.traces import Fault, answer_of, read_trace
from jaxtool.core.ranges import check_range
from jaxtool.core.types import ToolUnavailable
from jaxtool.data.contamination import EvaluationQuestions
from jaxtool.judges.base import Case, OpenJudge
from jaxtool.renderers.renderer import Renderer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """What a candidate must be to become a demonstration."""

    run: RunSettings = dataclasses.field(default_factory=RunSettings)
    max_chars: int = 100_000  # of a response; ReTool's rows have at most 16,384 tokens
    per_question: int = 1  # demonstrations of one question, the first ones
    # Similarity of two questions, by runs of five words, from which the later one is left out; None: never.
    near: float | None = 0.8
    concurrency: int = 16  # rows whose programs are run at a time

    def __post_init__(self) -> None:
        check_range(self, "max_chars", "per_question", "concurrency", least=1)
        check_range(self, "near", above=0, most=1)


class _Falling:
    """Rows that are still in, and those that fell out."""

    def __init__(self) -> None:
        self.rejected: list[Rejection] = []
        self.lost: list[Rejection] = []
        self.entered: dict[StepName, int] = {}

    def out(self, candidate: Candidate, step: StepName, fault: Fault) -> None:
        self.rejected.append(_rejection(candidate, step, fault))

    def gone(self, candidate: Candidate, step: StepName, why: str) -> None:
        self.lost.append(_rejection(candidate, step, Fault("lost", why)))


def check(
    candidates: Sequence[Candidate],
    *,
    runner: asyncio.Runner,
    settings: CheckSettings,
    renderer: Renderer,
    sandbox: Sandbox,
    judge: OpenJudge,
    evaluation: EvaluationQuestions,
    control: Sequence[str] = (),
    also: Callable[[Demonstration], None] = lambda demonstration: None,
) -> Checked:
    """Takes the candidates through all steps; their order is kept.

    Args:
      runner: the sandbox's; its loop does not run now, since judges may use it too.
      control: spellings of the tokenizer's control tokens; (): unknown.
      also: a last check of the form, such as a row's length in tokens; raises ValueError.
    """
    falling = _Falling()
    read = _read(candidates, settings, renderer, control, falling)
    ran = runner.run(_run(read, settings, renderer, sandbox, falling))
    ran = _writable(ran, also, falling)
    right = _judged(ran, renderer, judge, falling)
    single = _single(right, settings, falling)
    kept = _clean(single, evaluation, falling)
    return Checked(
        kept=tuple(kept),
        rejected=tuple(falling.rejected),
        lost=tuple(falling.lost),
        entered=falling.entered,
    )


def _rejection(candidate: Candidate, step: StepName, fault: Fault) -> Rejection:
    return Rejection(
        row_id=candidate.row_id,
        where=candidate.where,
        step=step,
        reason=fault.reason,
        detail=str(fault),
        question=candidate.question,
        text="".join(turn.text for turn in candidate.conversation.spoken[1:]),
    )


def _read(
    candidates: Sequence[Candidate],
    settings: CheckSettings,
    renderer: Renderer,
    control: Sequence[str],
    falling: _Falling,
) -> list[Demonstration]:
    """1. What is text, whole and of the renderer's form."""
    falling.entered["reply"] = len(candidates)
    whole = []
    for candidate in candidates:
        try:
            if candidate.fault is not None:
                raise candidate.fault
            for turn in candidate.conversation.spoken[1:]:
                if turn.role == "assistant":
                    check_plain(turn.text, max_chars=settings.max_chars, control=control)
            whole.append(candidate)
        except Fault as fault:
            falling.out(candidate, "reply", fault)
    falling.entered["form"] = len(whole)
    read = []
    for candidate in whole:
        try:
            trace = read_trace(candidate.conversation.spoken[1:], renderer)
            read.append(Demonstration(candidate=candidate, trace=trace, replaced=0))
        except Fault as fault:
            falling.out(candidate, "form", fault)
    return read


async def _run(
    read: Sequence[Demonstration],
    settings: CheckSettings,
    renderer: Renderer,
    sandbox: Sandbox,
    falling: _Falling,
) -> list[Demonstration]:
    """2. What its programs really print."""
    falling.entered["programs"] = len(read)
    places = asyncio.Semaphore(settings.concurrency)

    async def one(demonstration: Demonstration) -> Demonstration | Fault | ToolUnavailable:
        async with places:
            try:
                ran = await run_trace(demonstration.trace, sandbox, renderer, settings.run)
            except (Fault, ToolUnavailable) as error:
                return error
        return dataclasses.replace(demonstration, trace=ran.trace, replaced=ran.replaced)

    kept = []
    for before, after in zip(read, await asyncio.gather(*map(one, read)), strict=True):
        if isinstance(after, Fault):
            falling.out(before.candidate, "programs", after)
        elif isinstance(after, ToolUnavailable):
            falling.gone(before.candidate, "programs", str(after))
        else:
            kept.append(after)
    return kept


def _writable(
    ran: Sequence[Demonstration], also: Callable[[Demonstration], None], falling: _Falling
) -> list[Demonstration]:
    """What `sft` can write, where a tokenizer tells."""
    falling.entered["sft"] = len(ran)
    kept = []
    for demonstration in ran:
        try:
            also(demonstration)
            kept.append(demonstration)
        except ValueError as error:
            falling.out(demonstration.candidate, "sft", Fault("unfit", str(error)))
    return kept


def _judged(
    ran: Sequence[Demonstration], renderer: Renderer, judge: OpenJudge, falling: _Falling
) -> list[Demonstration]:
    """3. What is right, where there is a reference to compare with."""
    falling.entered["answer"] = len(ran)
    cases = [
        Case(
            problem=demonstration.candidate.problem,
            answer=answer_of(demonstration.trace, renderer),
            response=demonstration.trace.final_text,
        )
        for demonstration in ran
        if demonstration.candidate.problem is not None
    ]
    verdicts = iter(judge.judge(cases))
    kept = []
    for demonstration in ran:
        problem = demonstration.candidate.problem
        if problem is None:
            kept.append(demonstration)
            continue
        verdict = next(verdicts)
        if verdict is None:
            falling.gone(demonstration.candidate, "answer", "the judge gave no verdict")
        elif verdict.is_correct:
            kept.append(demonstration)
        else:
            answer = answer_of(demonstration.trace, renderer)
            golds = " or ".join(map(repr, problem.references))
            told = f"{answer!r:.80} is not {golds:.120} ({verdict.how})"
            falling.out(demonstration.candidate, "answer", Fault("wrong_answer", told))
    return kept


def _single(
    right: Sequence[Demonstration], settings: CheckSettings, falling: _Falling
) -> list[Demonstration]:
    """4. What was not there before: the row itself, its question often enough, a question like it."""
    falling.entered["repetition"] = len(right)
    faults = repetitions(
        [(each.candidate.question, each.trace.policy_text, each.candidate.where) for each in right],
        per_question=settings.per_question,
        near=settings.near,
    )
    kept = []
    for demonstration, fault in zip(right, faults, strict=True):
        if fault is None:
            kept.append(demonstration)
        else:
            falling.out(demonstration.candidate, "repetition", fault)
    return kept


def _clean(
    single: Sequence[Demonstration], evaluation: EvaluationQuestions, falling: _Falling
) -> list[Demonstration]:
    """5. What is in no evaluation set."""
    falling.entered["contamination"] = len(single)
    kept = []
    for demonstration in single:
        fault = contamination(demonstration.candidate.question, evaluation)
        if fault is None:
            kept.append(demonstration)
        else:
            falling.out(demonstration.candidate, "contamination", fault)
    return kept
