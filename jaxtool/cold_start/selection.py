"""Right answers of one's own policy as demonstrations: rejection sampling, and the answers with the fewest calls.

Real traces teach more than rewritten ones: they hold what the sandbox said, and what the policy did then.
Covered: the sampled trajectories that runs log (`trajectories.jsonl`), answers of an evaluation (`evaluate --workdir`), the
rules of choice as one pure function.
Not covered: runs whose renderer writes turns of the chat template; the check that programs print what the
log says (`experiments.check_demonstrations` does it).
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from jaxtool.cold_start.traces import holds_outputs_in_text
from jaxtool.core.ranges import check_range
from jaxtool.data.problem_rows import question_hash
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rundir.answer_files import iterate_answers, read_settings, split_name
from jaxtool.rundir.answer_records import AnswerRecord
from jaxtool.rundir.trajectory_log import (
    TRAJECTORIES_NAME,
    TokenView,
    TrajectoryView,
    read_trajectories,
)

Order = Literal["fewest_calls", "shortest", "latest"]
LOST = "lost_to_infrastructure"  # never judged, so neither right nor wrong
_BROKEN = "\ufffd"  # of a character that tokens share: its bytes are not in the log


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledAnswer:
    """One answer of a policy."""

    source: str  # run, step and sample
    question: str
    answer: str  # the reference
    response: str
    is_correct: bool
    calls: int
    tokens: int  # of the response
    step: int  # -1: of a finished policy
    fault: str = ""  # why its text cannot be used; "": it can


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """Which right answers become demonstrations."""

    # "fewest_calls": of the answers to a question those with the fewest calls, then the shortest (what OTC
    # rewards, as data). "shortest": by tokens. "latest": of the latest step.
    order: Order = "fewest_calls"
    per_question: int = 1
    max_calls: int | None = None
    min_calls: int = 0  # 1: only answers that use the tool
    first_step: int = 0
    last_step: int | None = None

    def __post_init__(self) -> None:
        check_range(self, "per_question", least=1)
        check_range(self, "max_calls", "min_calls", "first_step", "last_step", least=0)
        if self.order not in get_args(Order):
            raise ValueError(f"{self.order=} must be one of {', '.join(get_args(Order))}")
        if self.max_calls is not None and self.max_calls < self.min_calls:
            raise ValueError(f"{self.max_calls=} is below {self.min_calls=}: nothing would be left")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected:
    """What was chosen, and how many answers were left out for which reason."""

    chosen: tuple[SampledAnswer, ...]
    left_out: Mapping[str, int]


def select(answers: Sequence[SampledAnswer], settings: SelectionSettings) -> Selected:
    """The answers that the settings want, question by question in the order of their first answer."""
    left_out: collections.Counter[str] = collections.Counter()
    by_question: dict[str, list[SampledAnswer]] = {}
    for answer in answers:
        reason = _unwanted(answer, settings)
        if reason:
            left_out[reason] += 1
        else:
            by_question.setdefault(question_hash(answer.question), []).append(answer)
    chosen = []
    for same in by_question.values():
        different = list(
            {answer.response: answer for answer in reversed(_sorted(same, settings))}.values()
        )
        best = _sorted(different, settings)[: settings.per_question]
        left_out["same_response"] += len(same) - len(different)
        left_out["others_preferred"] += len(different) - len(best)
        chosen += best
    return Selected(chosen=tuple(chosen), left_out=dict(+left_out))


def _unwanted(answer: SampledAnswer, settings: SelectionSettings) -> str:
    """Why an answer is no candidate; "" where it is one."""
    last = settings.last_step
    is_late = last is not None and answer.step > last
    if is_late or 0 <= answer.step < settings.first_step:
        return "other_step"
    if answer.fault == LOST:
        return LOST
    if not answer.is_correct:
        return "wrong_answer"
    if answer.fault:
        return answer.fault
    most = settings.max_calls
    if answer.calls < settings.min_calls or (most is not None and answer.calls > most):
        return "other_number_of_calls"
    return ""


def _sorted(answers: Iterable[SampledAnswer], settings: SelectionSettings) -> list[SampledAnswer]:
    def rank(answer: SampledAnswer) -> tuple[int, int]:
        if settings.order == "fewest_calls":
            return answer.calls, answer.tokens
        return (answer.tokens, 0) if settings.order == "shortest" else (-answer.step, 0)

    return sorted(answers, key=lambda answer: (*rank(answer), answer.source))


def demonstration_row(answer: SampledAnswer) -> dict[str, object]:
    """As `sft` reads it."""
    messages = [
        {"role": "user", "content": answer.question},
        {"role": "assistant", "content": answer.response},
    ]
    return {
        "messages": messages,
        "answer": answer.answer,
        "row": answer.source,
        "calls": answer.calls,
    }


def read_run(workdir: Path) -> list[SampledAnswer]:
    """The answers that a run has logged.

    Raises:
      FileNotFoundError: the directory has no log of trajectories.
      ValueError: a line of it is broken.
    """
    path = workdir / TRAJECTORIES_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} has no {TRAJECTORIES_NAME}: name the work directory of an RL run"
        )
    return [_answer(view, workdir) for view in read_trajectories(path)]


def read_evaluation(text: str) -> list[SampledAnswer]:
    """The answers with tools of `WORKDIR` or `WORKDIR:POLICY`, a finished evaluation; lost ones are left out.

    Raises:
      FileNotFoundError, ValueError: as `answer_files.read_answers`; or the renderer writes results as turns.
    """
    workdir, policy = split_name(text)
    settings = read_settings(workdir)
    if not holds_outputs_in_text(load_renderer(settings.renderer)):
        raise ValueError(
            f"{text}: renderer {settings.renderer!r} writes results as turns of the chat template, which no text of a "
            "response shows: its answers make no demonstrations"
        )
    name = Path(workdir).name
    found: list[SampledAnswer] = []
    for condition in settings.conditions:
        if condition.has_tools:
            for records in iterate_answers(workdir, policy, condition):
                found += [_of_record(record, name) for record in records if not record.is_lost]
    if not found:
        raise ValueError(f"{text} holds no answer with tools: evaluate with --tools on")
    return found


def _of_record(record: AnswerRecord, workdir: str) -> SampledAnswer:
    response = record.response.strip()
    fault = "no_text" if not response else "broken_character" if _BROKEN in response else ""
    calls = record.max_tool_calls
    return SampledAnswer(
        source=f"{workdir} {record.policy} {record.sampling} {calls} {record.problem_id} sample {record.sample}",
        question=record.question,
        answer=record.references[0],
        response=response,
        is_correct=record.is_correct,
        calls=record.num_calls,
        tokens=record.policy_tokens + record.tool_tokens,
        step=-1,
        fault=fault,
    )


def _answer(view: TrajectoryView, workdir: Path) -> SampledAnswer:
    response = [token for token in view.tokens if token.origin != "prompt"]
    ends = len(response)
    while ends and response[ends - 1].is_control:
        ends -= 1
    step = -1 if view.step is None else view.step
    return SampledAnswer(
        source=f"{workdir.name} step {step} {view.problem_id} sample {view.sample}",
        question=view.question,
        answer=view.reference_answer,
        response="".join(token.text for token in response[:ends]).strip(),
        is_correct=view.is_correct,
        calls=len(view.tool_calls),
        tokens=len(response),
        step=step,
        fault=LOST if view.is_masked else _fault(response[:ends]),
    )


def _fault(tokens: Sequence[TokenView]) -> str:
    if not tokens:
        return "no_text"
    if any(token.is_control for token in tokens):
        return "control_token"
    return "broken_character" if any(_BROKEN in token.text for token in tokens) else ""
