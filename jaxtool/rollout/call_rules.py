"""What follows a call that a policy has written: it is made, refused in words, ends the response, or nothing.

Pure but for the counters of the sample. Knows no engine and no tool.
"""

import dataclasses
from typing import Literal

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import FinishReason
from jaxtool.rollout.live_sample import LiveSample

AtToolLimit = Literal["finish", "continue", "force_answer"]
OnInvalidCall = Literal["observe", "finish", "ignore"]

NO_CALLS_LEFT = "No tool calls are left. Give your final answer now."
_REASON_CHARS = 400


@dataclasses.dataclass(frozen=True)
class Notice:
    """What the policy reads in an observation's place."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallRules:
    """The fields of RolloutConfig that speak of calls."""

    max_tool_calls: int
    at_tool_limit: AtToolLimit
    invalid_calls: OnInvalidCall
    max_consecutive_invalid_calls: int

    def after(
        self, row: LiveSample, call: Call | InvalidCall | None
    ) -> Call | Notice | FinishReason | None:
        """A call to make, a text to show, how the response ends; None: it goes on as if nothing was written.

        Args:
          call: None: there was nothing to run.
        """
        if len(row.calls) >= self.max_tool_calls:
            return self._beyond_limit(row)
        if isinstance(call, InvalidCall):
            return self._invalid(row, call)
        if call is not None and row.room > 0:
            row.invalid_in_a_row = 0
            return call
        row.unexecuted_calls += 1
        return None if row.room > 0 else FinishReason.LENGTH

    def _beyond_limit(self, row: LiveSample) -> Notice | FinishReason | None:
        row.unexecuted_calls += 1
        if row.room <= 0:
            return FinishReason.LENGTH
        if self.at_tool_limit == "continue":
            return None
        if self.at_tool_limit == "finish" or row.is_told_to_answer:
            return FinishReason.TOOL_LIMIT
        row.is_told_to_answer = True
        return Notice(NO_CALLS_LEFT)

    def _invalid(self, row: LiveSample, call: InvalidCall) -> Notice | FinishReason | None:
        row.invalid_calls += 1
        row.invalid_in_a_row += 1
        if row.room <= 0:
            return FinishReason.LENGTH
        is_loop = row.invalid_in_a_row > self.max_consecutive_invalid_calls
        if self.invalid_calls == "finish" or is_loop:
            return FinishReason.INVALID_CALL
        if self.invalid_calls == "ignore":
            return None
        return Notice(f"Invalid call: {call.reason[:_REASON_CHARS]}")
