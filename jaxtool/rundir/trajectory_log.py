"""Sampled trajectories of a run as people look at them, and their file.

A view is made from the ledger once and holds text, origins and figures per token. Knows no model
and no tokenizer: the pieces of text come from the caller, one per token.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, SupportsFloat

import numpy as np

from jaxtool.core.types import Origin, Sample, Score, Span, Trajectory, Verdict
from jaxtool.rundir import jsonl

TRAJECTORIES_NAME = "trajectories.jsonl"

# What the viewer colours. "code" is the part of the policy's tokens that a tool got.
TokenOrigin = Literal["prompt", "policy", "code", "tool"]
_LETTERS: dict[str, TokenOrigin] = {"p": "prompt", "a": "policy", "c": "code", "t": "tool"}
_ORIGINS: dict[int, TokenOrigin] = {
    Origin.PROMPT: "prompt",
    Origin.POLICY: "policy",
    Origin.TOOL: "tool",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenView:
    text: str
    token_id: int
    origin: TokenOrigin
    is_control: bool = False  # a token that structures the context; its text is how it is spelled
    logprob: float | None = None  # behaviour log-prob, None where the policy did not write
    advantage: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCallView:
    status: str  # value of ToolStatus
    error_type: str = ""
    wall_ms: int = 0
    tool: str = ""  # logs of earlier versions do not name it
    # Tokens of the trajectory: first of the segment that ended in the call, just past the call, and just past
    # its observation; -1 in logs of earlier versions.
    start: int = -1
    stop: int = -1
    observation_stop: int = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrajectoryView:
    variant: str  # which run of a comparison, such as "grpo"
    step: int | None  # None: of no step, but of a finished policy
    problem_id: str
    level: str
    question: str
    reference_answer: str
    sample: int  # index in the group
    reward: float  # nan of a masked one, which no reward was drawn from
    is_correct: bool
    tool_calls: tuple[ToolCallView, ...] = ()
    tool_coefficient: float = 1.0  # r_tool
    finish_reason: str = ""
    advantage: float | None = None  # mean over the policy's tokens; None: there is none to show
    tokens: tuple[TokenView, ...] = ()
    references: tuple[
        str, ...
    ] = ()  # acceptable answers, any one is right; (): reference_answer alone
    final_answer: str | None = (
        None  # what was judged; None: there is none, or an earlier version wrote the log
    )
    how: str = ""  # how the verdict came about
    is_masked: bool = False  # lost to the infrastructure: never scored, in no figure
    unexecuted_calls: int = 0
    invalid_calls: int = 0
    spans: tuple[
        Span, ...
    ] = ()  # times: the only fields but `wall_ms` in which two equal runs differ


def trajectory_view(
    trajectory: Trajectory,
    score: Score | None,
    *,
    variant: str,
    step: int | None,
    token_texts: Sequence[str],
    advantages: Sequence[float] | np.ndarray | None = None,
    control_tokens: Mapping[int, str] | None = None,
    verdict: Verdict | None = None,
    spans: Sequence[Span] = (),
) -> TrajectoryView:
    """The view of a trajectory.

    Args:
      score: None of one that was never scored.
      token_texts: [T] decoded piece of each token.
      advantages: [T], read on policy tokens only; None where there are none (evaluation, a critic).
      control_tokens: spelling by id of tokens that structure a context, shown as such.

    Raises:
      ValueError: if a length is not that of the ledger.
    """
    lengths = {"token_texts": len(token_texts)}
    if advantages is not None:
        lengths["advantages"] = len(advantages)
    for name, length in lengths.items():
        if length != len(trajectory.ids):
            raise ValueError(f"{name} has {length} entries, the ledger {len(trajectory.ids)}")
    tokens = _token_views(trajectory, token_texts, advantages, control_tokens or {})
    known = [token.advantage for token in tokens if token.advantage is not None]
    return TrajectoryView(
        variant=variant,
        step=step,
        problem_id=trajectory.problem.problem_id,
        level=trajectory.problem.level,
        question=trajectory.problem.question,
        reference_answer=trajectory.problem.answer,
        sample=trajectory.sample,
        reward=math.nan if score is None else score.reward,
        is_correct=score is not None and score.is_correct,
        tool_calls=tuple(
            ToolCallView(
                status=str(call.result.status),
                error_type=call.result.error_type,
                wall_ms=call.result.wall_ms,
                tool=call.tool,
                start=call.start,
                stop=call.stop,
                observation_stop=call.observation_stop,
            )
            for call in trajectory.tool_calls
        ),
        tool_coefficient=1.0 if score is None else score.tool_coefficient,
        finish_reason=str(trajectory.finish_reason),
        advantage=sum(known) / len(known) if known else None,
        tokens=tokens,
        references=trajectory.problem.references,
        final_answer=None if verdict is None else verdict.answer,
        how="" if verdict is None else verdict.how,
        is_masked=trajectory.is_masked,
        unexecuted_calls=trajectory.unexecuted_calls,
        invalid_calls=trajectory.invalid_calls,
        spans=tuple(spans),
    )


def _token_views(
    trajectory: Trajectory,
    token_texts: Sequence[str],
    advantages: Sequence[float] | np.ndarray | None,
    control: Mapping[int, str],
) -> tuple[TokenView, ...]:
    is_code = _code_mask(trajectory, token_texts)
    is_policy = trajectory.origins == Origin.POLICY
    return tuple(
        TokenView(
            text=control.get(int(trajectory.ids[t]), text),
            is_control=int(trajectory.ids[t]) in control,
            token_id=int(trajectory.ids[t]),
            origin="code" if is_code[t] else _ORIGINS[int(trajectory.origins[t])],
            logprob=_shown(trajectory.behaviour_logprobs[t]) if is_policy[t] else None,
            advantage=_shown(advantages[t]) if advantages is not None and is_policy[t] else None,
        )
        for t, text in enumerate(token_texts)
    )


def logged_views(
    samples: Sequence[Sample],
    count: int,
    *,
    variant: str,
    step: int | None,
    token_text: Callable[[int], str],
    control_tokens: Mapping[int, str],
    advantages: Sequence[float | np.ndarray | None] | np.ndarray | None,
) -> list[TrajectoryView]:
    """About `count` samples as the report shows them, in whole groups; masked ones are there and say so.

    Args:
      samples: group after group; a group is what asks one problem.
      step: None for samples of a finished policy. The groups of a step follow those of the step before.
      token_text: the decoded piece of a token.
      control_tokens: spelling by id of tokens that structure a context.
      advantages: of each sample one for all its policy tokens, or [T] one for each token, or None: it has none.
        None: no sample has any.
    """
    shown = [None] * len(samples) if advantages is None else advantages
    pairs = list(zip(samples, shown, strict=True))
    return [
        trajectory_view(
            sample.trajectory,
            sample.score,
            variant=variant,
            step=step,
            token_texts=[token_text(int(token)) for token in sample.trajectory.ids],
            control_tokens=control_tokens,
            advantages=None
            if advantage is None or sample.score is None
            else np.broadcast_to(advantage, sample.trajectory.ids.shape),
            verdict=sample.verdict,
            spans=() if sample.times is None else sample.times.spans,
        )
        for first, stop in _whole_groups(samples, count, step or 0)
        for sample, advantage in pairs[first:stop]
    ]


def _whole_groups(samples: Sequence[Sample], count: int, step: int) -> list[tuple[int, int]]:
    """(first, stop) of about count / G groups, evenly spaced; the first of them moves on with the step."""
    ids = [sample.trajectory.problem.problem_id for sample in samples]
    starts = [i for i in range(len(ids)) if i == 0 or ids[i] != ids[i - 1]]
    if not starts:
        return []
    wanted = min(max(round(count * len(starts) / len(ids)), 1), len(starts))
    chosen = sorted((k * len(starts) // wanted + step) % len(starts) for k in range(wanted))
    stops = [*starts[1:], len(ids)]
    return [(starts[k], stops[k]) for k in chosen]


def _code_mask(trajectory: Trajectory, token_texts: Sequence[str]) -> np.ndarray:
    """[T] bool, the tokens that hold the arguments of calls, for display only.

    A call's segment also holds the thoughts before the call, so each text among its arguments is looked
    for in the segment's pieces; where one is not found (a character split over tokens, an escape in JSON)
    the segment counts.
    """
    mask = np.zeros(len(token_texts), dtype=bool)
    for call in trajectory.tool_calls:
        pieces = token_texts[call.start : call.stop]
        shown = [value.strip() for value in call.arguments.values() if isinstance(value, str)]
        mask[call.start : call.stop] = _holds(pieces, shown)
    return mask


def _holds(pieces: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """bool of each piece: it holds a part of one of `texts`; all True where one is not found."""
    whole = "".join(pieces)
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = np.concatenate([[0], ends[:-1]])
    mask = np.zeros(len(pieces), dtype=bool)
    for text in texts:
        first = whole.rfind(text) if text else -1
        if first < 0:
            return np.ones(len(pieces), dtype=bool)
        mask |= (starts < first + len(text)) & (ends > first)
    return mask if texts else np.ones(len(pieces), dtype=bool)


def _shown(value: SupportsFloat) -> float | None:
    """A figure of a token with the four digits that are shown; they are most of the file."""
    number = float(value)
    return round(number, 4) if math.isfinite(number) else None


def view_to_row(view: TrajectoryView) -> dict[str, Any]:
    """JSON of a view, tokens by column."""
    letters = {origin: letter for letter, origin in _LETTERS.items()}
    row = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    row["reward"] = view.reward if math.isfinite(view.reward) else None
    row["tool_calls"] = [dataclasses.asdict(call) for call in view.tool_calls]
    row["spans"] = [dataclasses.asdict(span) for span in view.spans]
    row["tokens"] = {
        "text": [token.text for token in view.tokens],
        "id": [token.token_id for token in view.tokens],
        "origin": "".join(letters[token.origin] for token in view.tokens),
        "control": [t for t, token in enumerate(view.tokens) if token.is_control],
        "logprob": [token.logprob for token in view.tokens],
        "advantage": [token.advantage for token in view.tokens],
    }
    return row


def view_from_row(row: dict[str, Any]) -> TrajectoryView:
    """Inverse of `view_to_row`."""
    columns = row["tokens"]
    tokens = zip(*(columns[name] for name in ("text", "id", "logprob", "advantage")), strict=True)
    control = set(columns.get("control", ()))  # logs of earlier versions have none
    calls = tuple(ToolCallView(**call) for call in row["tool_calls"])
    views = tuple(
        TokenView(
            text=text,
            token_id=token_id,
            origin=_LETTERS[letter],
            is_control=t in control,
            logprob=logprob,
            advantage=advantage,
        )
        for t, (letter, (text, token_id, logprob, advantage)) in enumerate(
            zip(columns["origin"], tokens, strict=True)
        )
    )
    changed = {
        "reward": math.nan if row["reward"] is None else row["reward"],
        "tool_calls": calls,
        "tokens": views,
        "references": tuple(row.get("references", ())),
        "spans": tuple(Span(**span) for span in row.get("spans", ())),
    }
    return TrajectoryView(**{**row, **changed})


def without_times(row: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a view's row that a run with the same seed on the same machine gives again, bit by bit."""
    calls = [{**call, "wall_ms": 0} for call in row["tool_calls"]]
    return {**row, "tool_calls": calls, "spans": []}


class TrajectoryLog(jsonl.Closes):
    """Appends views to WORKDIR/trajectories.jsonl; resumes as MetricsWriter does."""

    def __init__(self, workdir: str | pathlib.Path, resume_step: int | None = None):
        path = pathlib.Path(workdir) / TRAJECTORIES_NAME
        self._file = jsonl.open_for_append(path, resume_step)

    def write(self, views: Iterable[TrajectoryView]) -> None:
        for view in views:
            jsonl.append_row(self._file, view_to_row(view))

    def sync(self) -> None:
        """See `jsonl.sync`."""
        jsonl.sync(self._file)

    def close(self) -> None:
        self._file.close()


def read_trajectories(path: str | pathlib.Path) -> list[TrajectoryView]:
    """Views in the order in which they were written."""
    return [view_from_row(row) for row in jsonl.read_rows(path)]
