"""Trajectories as rewards see them: a problem, calls, a finish reason."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxtool.core.types import FinishReason, Problem, ToolCall, ToolResult, ToolStatus, Trajectory


def _trajectory(
    calls: int = 0,
    *,
    problem_id: str = "p",
    finish_reason: FinishReason = FinishReason.ANSWER,
    unexecuted_calls: int = 0,
) -> Trajectory:
    call = ToolCall(
        tool="",
        arguments={"code": "1"},
        result=ToolResult(status=ToolStatus.OK),
        start=1,
        stop=2,
        observation_stop=2,
    )
    return Trajectory(
        problem=Problem(problem_id=problem_id, question="1 + 1", answer="2"),
        sample=0,
        ids=np.array([1, 2], np.int32),
        origins=np.array([1, 2], np.int8),
        behaviour_logprobs=np.zeros(2, np.float32),
        policy_versions=np.array([-1, 0], np.int32),
        tool_calls=(call,) * calls,
        unexecuted_calls=unexecuted_calls,
        finish_reason=finish_reason,
    )


@pytest.fixture
def make_trajectory() -> Callable[..., Trajectory]:
    return _trajectory
