"""Ledgers written by hand."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from helpers.tiny_models import random_tokens

from jaxtool.core.types import (
    FinishReason,
    Group,
    Origin,
    Problem,
    Sample,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
    Verdict,
)

_ORIGINS = {"Q": Origin.PROMPT, "p": Origin.POLICY, "t": Origin.TOOL}


def ledger(
    origins: str,
    *,
    problem: str = "p0",
    sample: int = 0,
    level: str = "easy",
    calls: Sequence[ToolStatus] = (),
    reason: FinishReason = FinishReason.ANSWER,
    unexecuted: int = 0,
    first_id: int = 10,
) -> Trajectory:
    """Origins as letters: Q prompt, p policy, t tool. Ids count up; log-probs are -1, -2, ... / 10.

    The n-th run of tool letters belongs to the n-th call.
    """
    kinds = np.array([_ORIGINS[letter] for letter in origins], np.int8)
    is_policy = kinds == Origin.POLICY
    logprobs = np.where(is_policy, -np.cumsum(is_policy) / 10, 0).astype(np.float32)
    spans, at = [], 0
    for part in origins.replace("Qp", "Q|p").replace("tp", "t|p").split("|"):
        at += len(part)
        if part.endswith("t"):
            first = at - len(part.lstrip("Q"))
            spans.append((first, at - part.count("t"), at))
    return Trajectory(
        problem=Problem(problem_id=problem, question="1+1", answer="2", level=level),
        sample=sample,
        ids=np.arange(first_id, first_id + len(kinds), dtype=np.int32),
        origins=kinds,
        behaviour_logprobs=logprobs,
        policy_versions=np.where(is_policy, 0, -1).astype(np.int32),
        tool_calls=tuple(
            ToolCall(
                tool="python",
                arguments={"code": "1"},
                result=ToolResult(status=s),
                start=a,
                stop=b,
                observation_stop=c,
            )
            for s, (a, b, c) in zip(calls, spans, strict=True)
        ),
        unexecuted_calls=unexecuted,
        finish_reason=reason,
    )


def calling(*tools: str, problem: str = "p0", level: str = "easy", sample: int = 0) -> Trajectory:
    """A ledger of one call of each of `tools`, in order: a token of the policy and one of the tool each."""
    made = ledger(
        "Q" + "pt" * len(tools) + "p",
        problem=problem,
        level=level,
        sample=sample,
        calls=[ToolStatus.OK] * len(tools),
    )
    named = [
        dataclasses.replace(call, tool=tool)
        for call, tool in zip(made.tool_calls, tools, strict=True)
    ]
    return dataclasses.replace(made, tool_calls=tuple(named))


def group_of(*trajectories: Trajectory, is_correct: Sequence[bool] = ()) -> Group:
    """One group of trajectories of one problem.

    Args:
      is_correct: verdicts, one each; empty: not judged.
    """
    verdicts = [Verdict.plain(c, "a test") for c in is_correct] or [None] * len(trajectories)
    return Group(
        problem=trajectories[0].problem,
        samples=tuple(
            Sample(
                trajectory=trajectory,
                verdict=verdict,
            )
            for trajectory, verdict in zip(trajectories, verdicts, strict=True)
        ),
    )


def random_ledgers(shapes: Sequence[str], seed: int = 0) -> list[Trajectory]:
    """One ledger of each shape, each of a problem of its own, with random ids and a call where it has a tool."""
    made = []
    for i, shape in enumerate(shapes):
        one = ledger(shape, problem=f"p{i}", calls=[ToolStatus.OK] * ("t" in shape))
        made.append(
            dataclasses.replace(one, ids=np.asarray(random_tokens(1, len(shape), seed + i))[0])
        )
    return made
