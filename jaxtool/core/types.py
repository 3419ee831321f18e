"""Words that every layer uses: the token ledger, tool calls and problems.

Plain Python and numpy; knows no model, no text rules, no network, and never imports jax.

Axis glossary, used in every shape of this code base:
  B rows of a batch       G samples per problem (group)   T tokens of a trajectory or packed row
  P prompt tokens         S cache positions                   V vocabulary
  D model width           F feed-forward width            N query heads
  K key/value heads       H head width                    L layers
A lower-case letter is a local variable holding that size.
"""

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np


class Origin(enum.IntEnum):
    """Who wrote a token. PAD is used only in batches, never in a ledger."""

    PAD = 0
    PROMPT = 1
    POLICY = 2
    TOOL = 3


class FinishReason(enum.StrEnum):
    """Why a trajectory ended."""

    ANSWER = "answer"  # the policy closed its answer tag
    EOS = "eos"  # the policy sampled the end-of-sequence token
    LENGTH = "length"  # max_response_tokens reached, tool tokens included
    TOOL_LIMIT = "tool_limit"  # a call beyond max_tool_calls, where the protocol ends there
    INVALID_CALL = "invalid_call"  # a call that could not be made, where these end the response
    INFRASTRUCTURE = "infrastructure"  # the tool could not be reached; the trajectory is masked


class ToolStatus(enum.StrEnum):
    """What the kernel saw of one execution. Infrastructure trouble is never a status."""

    OK = "ok"
    ERROR = "error"  # the program raised
    CPU_LIMIT = "cpu_limit"
    WALL_LIMIT = "wall_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    KILLED = "killed"  # died of a signal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolResult:
    """Outcome of one execution. Texts are untrusted; status and times are not."""

    status: ToolStatus
    stdout: str = ""
    stderr: str = ""  # traceback, user frames only
    last_value: str = ""  # repr of a last expression, empty if there is none
    error_type: str = ""  # for example "ZeroDivisionError"
    note: str = ""  # of the tool itself: what became of its state; the policy reads it whole
    is_truncated: bool = False
    cpu_ms: int = 0
    wall_ms: int = 0
    queue_ms: int = 0


class ToolUnavailable(Exception):
    """The tool's infrastructure failed after all retries. Never the policy's fault."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call that got an observation: these are the calls that TC counts (OTC-PO, section 2)."""

    tool: str  # name of the tool that answered
    arguments: Mapping[str, Any]  # JSON values by name, as the policy gave them
    result: ToolResult
    start: int  # index of the first policy token of the segment that ended in the call
    stop: int  # index just past the last policy token before the observation
    observation_stop: int  # index just past the last tool token of the observation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its reference answer, or with several of which any one is right."""

    problem_id: str  # stable across runs; keys the store of n and the random stream
    question: str
    answer: str
    answers: tuple[str, ...] = ()  # all acceptable ones, `answer` first; (): only `answer`
    level: str = ""  # difficulty or data set name, a column in every table

    def __post_init__(self) -> None:
        if self.answers and self.answers[0] != self.answer:
            raise ValueError(
                f"{self.problem_id}: answer {self.answer!r} must be the first of {self.answers}"
            )

    @property
    def references(self) -> tuple[str, ...]:
        """Every acceptable answer, one or more."""
        return self.answers or (self.answer,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Append-only token ledger of one sampled response, prompt included.

    Loss masks, call counts and rewards derive from it; nothing is decoded and tokenised again.
    """

    problem: Problem
    sample: int  # index in the group, 0..G-1
    ids: np.ndarray  # [T] int32
    origins: np.ndarray  # [T] int8, values of Origin
    behaviour_logprobs: np.ndarray  # [T] float32, 0 where the policy did not write the token
    policy_versions: np.ndarray  # [T] int32, learner step that sampled the token, -1 elsewhere
    tool_calls: tuple[ToolCall, ...] = ()
    unexecuted_calls: int = 0  # calls the policy wrote that got no observation
    invalid_calls: int = (
        0  # calls that could not be made: no JSON, no such tool, a missing argument
    )
    finish_reason: FinishReason = FinishReason.EOS
    lost_to: str = ""  # who failed where it is masked: a tool's name, or "judge"
    response_text: str = ""  # decoded once for scoring and display, never tokenised again
    final_text: str = ""  # policy text after the last observation: the only text that is scored

    @property
    def num_tool_calls(self) -> int:
        return len(self.tool_calls)

    @property
    def is_masked(self) -> bool:
        """True if the infrastructure failed, so that no reward may be drawn from this trajectory."""
        return self.finish_reason is FinishReason.INFRASTRUCTURE

    @property
    def num_policy_tokens(self) -> int:
        return int(np.sum(self.origins == Origin.POLICY))

    @property
    def prompt_ids(self) -> np.ndarray:
        """[P] int32, what the policy was given before its first token."""
        return self.ids[: int(np.sum(self.origins == Origin.PROMPT))]

    def check(self) -> None:
        """Raises ValueError if an invariant of the ledger does not hold."""
        t = self.ids.shape[0]
        for name in ("origins", "behaviour_logprobs", "policy_versions"):
            shape = getattr(self, name).shape
            if shape != (t,):
                raise ValueError(
                    f"ledger of {self.problem.problem_id}: {name} has {shape=}, ids {t=}"
                )
        is_policy = self.origins == Origin.POLICY
        if np.any(self.origins == Origin.PAD):
            raise ValueError(f"ledger of {self.problem.problem_id} holds PAD tokens")
        if np.any(self.behaviour_logprobs[~is_policy] != 0.0):
            raise ValueError("a token the policy did not write carries a behaviour log-prob")
        if np.any(self.behaviour_logprobs[is_policy] > 0.0):
            raise ValueError("a behaviour log-prob is positive")
        if np.any((self.policy_versions >= 0) != is_policy):
            raise ValueError("policy_versions must be >= 0 exactly on policy tokens")
        is_prompt = self.origins == Origin.PROMPT
        if not is_prompt[0] or np.any(np.diff(is_prompt.astype(np.int8)) > 0):
            raise ValueError("prompt tokens must be one non-empty prefix")
        for call in self.tool_calls:
            if not 0 < call.start < call.stop <= call.observation_stop <= t:
                raise ValueError(f"tool call out of order: {call.start=} {call.stop=} {t=}")
            if np.any(self.origins[call.start : call.stop] != Origin.POLICY):
                raise ValueError("a tool call holds tokens that the policy did not write")
            if np.any(self.origins[call.stop : call.observation_stop] != Origin.TOOL):
                raise ValueError("an observation holds tokens that the tool did not write")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge says of one response."""

    score: float  # 0 wrong, 1 right, between them where the judge gives parts
    is_correct: bool
    how: str  # how it came about, in a few words: "numbers", "no answer"
    answer: str | None = None  # what was judged, as it stands in the response; None: there is none
    is_lenient: bool | None = None  # right by a more lenient rule, where the judge reports one

    def __bool__(self) -> bool:
        return self.is_correct

    @classmethod
    def plain(cls, is_correct: bool, how: str) -> "Verdict":
        """Right or wrong, with nothing between."""
        return cls(score=float(is_correct), is_correct=is_correct, how=how)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """What the reward says of one trajectory."""

    reward: float  # what the learner gets
    is_correct: bool
    tool_coefficient: float = 1.0  # r_tool of OTC-PO (equations 5 and 6); 1 where none applies
    fewest_calls: float | None = None  # n used for this trajectory, None where unknown
    shaping: float = 0.0  # added to the advantage within bounds (ASPO), not to the reward


SpanKind = Literal["generate", "tool", "judge"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Span:
    """What an answer did for a while, in milliseconds since the answer left the queue."""

    kind: SpanKind
    start_ms: int
    stop_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleTimes:
    """When one rollout did what. It depends on the clock, so two equal runs differ in it."""

    left_queue_s: float  # on the monotonic clock of the host that sampled it
    spans: tuple[Span, ...]  # one after the other, with gaps where nobody worked on it

    def with_spans(self, spans: Iterable[tuple[SpanKind, float, float]]) -> "SampleTimes":
        """The same with further spans: kind, start and stop in seconds on the monotonic clock of that host."""
        more = (
            Span(
                kind=kind,
                start_ms=round(1000 * (start - self.left_queue_s)),
                stop_ms=round(1000 * (stop - self.left_queue_s)),
            )
            for kind, start, stop in spans
        )
        return dataclasses.replace(self, spans=(*self.spans, *more))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One finished rollout in its group: the trajectory, and what has been decided about it since."""

    trajectory: Trajectory
    verdict: Verdict | None = None  # the judge's; None: not judged yet
    score: Score | None = None  # None: not scored yet; a masked one never is
    is_chosen: bool = False  # a member of a group that this step learns from
    is_dropped: bool = False  # carries no loss, but is in its group's statistics
    # Not part of what the sample is: no comparison, no figure that a resume must repeat reads it.
    times: SampleTimes | None = dataclasses.field(default=None, compare=False)

    @property
    def is_correct(self) -> bool | None:
        """As the reward sees it, and until it does as the judge does; None: not judged yet."""
        decided = self.verdict if self.score is None else self.score
        return None if decided is None else decided.is_correct

    @property
    def is_masked(self) -> bool:
        return self.trajectory.is_masked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """A problem with all its samples, in order: made by the collector, kept up to the batch."""

    problem: Problem
    samples: tuple[Sample, ...]

    @property
    def trajectories(self) -> list[Trajectory]:
        return [sample.trajectory for sample in self.samples]

    @property
    def is_whole(self) -> bool:
        """Whether every sample came back; the infrastructure lost none."""
        return not any(sample.is_masked for sample in self.samples)

    @property
    def chosen(self) -> list[Sample]:
        return [sample for sample in self.samples if sample.is_chosen]


def samples_of(groups: Iterable[Group]) -> list[Sample]:
    """All samples, group after group."""
    return [sample for group in groups for sample in group.samples]


def trajectories_of(groups: Iterable[Group]) -> list[Trajectory]:
    """All trajectories, group after group."""
    return [sample.trajectory for sample in samples_of(groups)]


def with_samples(groups: Sequence[Group], samples: Iterable[Sample]) -> list[Group]:
    """The same groups with other samples, as many in each; `samples` are group after group.

    Raises:
      ValueError: there are more or fewer samples than before.
    """
    rest = list(samples)
    if len(rest) != (size := sum(len(group.samples) for group in groups)):
        raise ValueError(f"{len(rest)} samples for groups of together {size}")
    out = []
    for group in groups:
        count = len(group.samples)
        out.append(dataclasses.replace(group, samples=tuple(rest[:count])))
        rest = rest[count:]
    return out
