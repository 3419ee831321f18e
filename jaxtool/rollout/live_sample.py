"""One sample from the queue to its trajectory: what is asked, where it decodes, what was written.

Append only; frozen into a Trajectory at the end. Knows no engine.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxtool.core.calls import Call
from jaxtool.core.types import (
    FinishReason,
    Origin,
    Problem,
    SampleTimes,
    SpanKind,
    ToolCall,
    ToolResult,
    Trajectory,
)
from jaxtool.data.tokenizer import Tokenizer, decode, written_bytes
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.policy_text import Reader, Stop
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.job import Job
from jaxtool.tools.menu import Sessions


@dataclasses.dataclass(kw_only=True, eq=False)
class LiveSample:
    """Tokens of one sample with who wrote them; text is derived from bytes, never tokenised again."""

    job: Job
    index: int  # of the problem in its job
    prompt_number: int  # the same for all samples of a problem in a job, for no others
    problem: Problem
    sample: int  # index in the group
    prompt: Sequence[int]
    max_length: int  # tokens the row may hold, prompt included
    row_key: np.ndarray  # [2] uint32
    sampling: Sampling
    renderer: Renderer
    sessions: Sessions  # with the tools that it calls; closed when it ends
    cache_row: int = -1  # -1 in the queue
    ids: list[int] = dataclasses.field(default_factory=list)
    origins: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    versions: list[int] = dataclasses.field(default_factory=list)
    calls: list[ToolCall] = dataclasses.field(default_factory=list)
    unexecuted_calls: int = 0
    invalid_calls: int = 0
    invalid_tools: list[str] = dataclasses.field(default_factory=list)  # whose names these had
    invalid_in_a_row: int = 0  # since the last call that was made
    is_told_to_answer: bool = False  # that no calls are left
    segment_start: int = 0  # first token that the policy wrote since the last observation
    reader: Reader = dataclasses.field(init=False)  # of the text of its tokens
    decoded: int = 0  # tokens that the reader has
    # What it did when, on the monotonic clock: (kind, start, stop) from its leaving the queue on.
    spans: list[tuple[SpanKind, float, float]] = dataclasses.field(default_factory=list)
    left_queue_s: float = dataclasses.field(init=False)
    since_s: float = dataclasses.field(init=False)  # where its last span ended

    def begin(self, cache_row: int) -> None:
        """Leaves the queue for a row of the cache."""
        self.cache_row = cache_row
        self.left_queue_s = self.since_s = time.monotonic()
        self._extend(self.prompt, Origin.PROMPT, [0.0] * len(self.prompt), -1)
        self._begin_segment(is_first=True)

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.max_length - len(self.ids)

    def add_policy(self, ids: Sequence[int], logprobs: Sequence[float], version: int) -> None:
        self._extend(ids, Origin.POLICY, logprobs, version)

    def add_observation(self, call: Call, result: ToolResult, ids: Sequence[int]) -> None:
        """Closes the current segment with what the tool said and begins the next one."""
        start, stop = self.segment_start, len(self.ids)
        self._extend(ids, Origin.TOOL, [0.0] * len(ids), -1)
        self.end_span("tool")
        self.calls.append(
            ToolCall(
                tool=call.tool,
                arguments=call.arguments,
                result=result,
                start=start,
                stop=stop,
                observation_stop=len(self.ids),
            )
        )
        self._begin_segment()

    def add_notice(self, ids: Sequence[int]) -> None:
        """Text in an observation's place that no tool said; the next segment begins behind it."""
        self._extend(ids, Origin.TOOL, [0.0] * len(ids), -1)
        self._begin_segment()

    def end_span(self, kind: Literal["generate", "tool"]) -> None:
        """What it has done since its last span ended."""
        now = time.monotonic()
        if kind == "tool" or round(1000 * (now - self.since_s)):
            self.spans.append((kind, self.since_s, now))
        self.since_s = now

    @property
    def times(self) -> SampleTimes:
        """Of a sample that has left the queue."""
        times = SampleTimes(left_queue_s=self.left_queue_s, spans=())
        return times.with_spans(self.spans)

    def next_stop(self, tokenizer: Tokenizer) -> Stop | None:
        """The next tag that counts in what the policy has written since the last observation."""
        new = self.ids[self.decoded :]
        self.reader.feed(b"".join(written_bytes(tokenizer, token_id) for token_id in new))
        self.decoded = len(self.ids)
        stop = self.reader.next_stop(
            is_end=self.renderer.ends_by_turn and self.has_ended(tokenizer)
        )
        self.unexecuted_calls += 0 if stop is None else stop.unread
        return stop

    def has_ended(self, tokenizer: Tokenizer) -> bool:
        """Whether the policy's last token is an end token."""
        return self.ids[-1] in tokenizer.eos_ids

    def freeze(self, reason: FinishReason, tokenizer: Tokenizer, lost_to: str = "") -> Trajectory:
        self.end_span("tool" if reason is FinishReason.INFRASTRUCTURE else "generate")
        return Trajectory(
            problem=self.problem,
            sample=self.sample,
            ids=np.asarray(self.ids, np.int32),
            origins=np.asarray(self.origins, np.int8),
            behaviour_logprobs=np.asarray(self.logprobs, np.float32),
            policy_versions=np.asarray(self.versions, np.int32),
            tool_calls=tuple(self.calls),
            unexecuted_calls=self.unexecuted_calls,
            invalid_calls=self.invalid_calls,
            finish_reason=reason,
            lost_to=lost_to,
            response_text=decode(tokenizer, self.ids[len(self.prompt) :]),
            final_text=decode(tokenizer, self.ids[self.segment_start :]),
        )

    def _extend(
        self, ids: Sequence[int], origin: Origin, logprobs: Sequence[float], version: int
    ) -> None:
        self.ids.extend(ids)
        self.origins.extend([int(origin)] * len(ids))
        self.logprobs.extend(logprobs)
        self.versions.extend([version] * len(ids))

    def _begin_segment(self, *, is_first: bool = False) -> None:
        self.segment_start = self.decoded = len(self.ids)
        self.reader = self.renderer.reader(is_first=is_first)
