"""A tool call on its way, and what came back. Infrastructure that fails is a result like others."""

import dataclasses

from jaxtool.core.calls import Call
from jaxtool.core.types import ToolResult, ToolUnavailable
from jaxtool.rollout.live_sample import LiveSample


@dataclasses.dataclass(frozen=True)
class Observation:
    """A call's end; its row waits for it."""

    row: LiveSample
    call: Call
    result: ToolResult | None  # None: the infrastructure failed


async def run_call(row: LiveSample, call: Call) -> Observation:
    """Makes a call in its row's session. What a broken tool raises goes on to the caller."""
    try:
        return Observation(row, call, await row.sessions.call(row.renderer.to_run(call)))
    except ToolUnavailable:
        return Observation(row, call, None)
