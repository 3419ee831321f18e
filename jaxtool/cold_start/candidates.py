"""What travels through the checks: a candidate, what it became, and why it fell out."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jaxtool.cold_start.traces import Fault, Trace, messages_of
from jaxtool.core.types import Problem
from jaxtool.renderers.conversations import Conversation
from jaxtool.renderers.renderer import Renderer

StepName = Literal["reply", "form", "programs", "sft", "answer", "repetition", "contamination"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A response that may become a demonstration."""

    row_id: str
    where: str  # file:line of its row
    problem: Problem | None  # None: no reference answer is known
    conversation: Conversation
    question: str  # without the prompt around it, if a row has one
    fault: Fault | None = None  # found before: a reply that was cut off


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstration:
    """A candidate that passed, with the outputs of the sandbox in it."""

    candidate: Candidate
    trace: Trace
    replaced: int  # outputs that its author wrote otherwise

    def row(self, renderer: Renderer) -> dict[str, object]:
        """As `sft` reads it; further keys are for people and for checking the file again."""
        candidate = self.candidate
        before = [turn for turn in candidate.conversation.turns if turn.role == "system"]
        before.append(candidate.conversation.spoken[0])
        opening = [{"role": turn.role, "content": turn.text} for turn in before]
        row: dict[str, object] = {"messages": [*opening, *messages_of(self.trace, renderer)]}
        if candidate.problem is not None:
            references = candidate.problem.references
            row["answer"] = references[0] if len(references) == 1 else list(references)
        return row | {"row": candidate.row_id, "calls": len(self.trace.calls)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rejection:
    """A row that fell out."""

    row_id: str
    where: str
    step: StepName
    reason: str  # a word, the same for all of its kind
    detail: str  # one line
    question: str
    text: str = ""  # of the response

    def as_json(self) -> dict[str, str]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What became of the candidates."""

    kept: tuple[Demonstration, ...]
    rejected: tuple[Rejection, ...]
    lost: tuple[Rejection, ...]  # by infrastructure: nothing is known of them
    entered: Mapping[StepName, int]  # rows that came to each step

    @property
    def without_reference(self) -> int:
        """Demonstrations whose answer was compared with nothing."""
        return sum(each.candidate.problem is None for each in self.kept)
