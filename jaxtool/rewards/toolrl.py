"""ToolRL's reward of the calls that a response writes (2504.13958, section 3.3), and its variants (section 5).

    R = R_format + R_correct,   R_format in {0, 1},   R_correct = 6 ⋅ S / S_max - 3

S / S_max is the score of `jaxtool.judges.tool_calls.ToolCalls`. Where no call is right (the reference is a
`<response>`, or []), R_correct is 0, as in the public code.

Deviations from the public code: the progress of training is taken from the version that sampled the
response's last token; lengths of thoughts are not rounded. From the paper: none known.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from jaxtool.core.ranges import check_range
from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.judges.tool_calls import expected_calls
from jaxtool.rewards.fewest_calls import CallHistory

# Section 5.2. "two_stage": format as given, correctness by a third; from `switch_step` on format by a half,
# correctness as given. "smooth": p goes from 0 to 1 in `scale_steps`; format in [-2 + p, 2 - p], correctness in
# [-2 - p, 2 + p].
Scale = Literal["fixed", "two_stage", "smooth"]
# Section 5.1, words of the thought: min(L / think_words, 1); "dynamic": min(L / (think_words ⋅ (1 + p)), 1).
Length = Literal["none", "fixed", "dynamic"]

_THINK = r"<think>.*?</think>"
_CALLS = {
    "toolrl": r"<tool_call>\n(?:(?!</?tool_call>).)*\n</tool_call>",
    "hermes": r"<tool_call>\n(?:(?!</?tool_call>).)*\n</tool_call>"
    r"(?:\n<tool_call>\n(?:(?!</?tool_call>).)*\n</tool_call>)*",
}
_RESPONSE = r"<response>(?:(?!</?response>).)*</response>"


def has_format(text: str, *, calls: bool, response: bool, form: str = "toolrl") -> bool:
    """Whether a text is a thought and then the tags that are wanted, each once and nothing else.

    Args:
      calls: a <tool_call> is wanted.
      response: a <response> is wanted, behind it.
    """
    parts = [_THINK, *([_CALLS[form]] if calls else []), *([_RESPONSE] if response else [])]
    return re.fullmatch("\n".join(parts), text.strip(), re.DOTALL) is not None


def thought_words(text: str) -> int:
    """Words of the last thought; 0 without one."""
    if "<think>" not in text or "</think>" not in text:
        return 0
    return len(text.rpartition("<think>")[2].partition("</think>")[0].split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolRlReward:
    """R_format + R_correct (+ R_length). "Equal max" of section 5.2 is correct_range = (-1, 1)."""

    form: Literal["toolrl", "hermes"] = (
        "toolrl"  # that of the judge: one tag for all calls, or one each
    )
    format_range: tuple[float, float] = (0.0, 1.0)  # wrong, right
    correct_range: tuple[float, float] = (-3.0, 3.0)  # no match, all matched
    scale: Scale = "fixed"
    switch_step: int = 30
    scale_steps: int = 150  # updates until p is 1; the public code's
    length: Length = "none"
    think_words: int = 512

    def __post_init__(self) -> None:
        for name, choices in (
            ("form", tuple(_CALLS)),
            ("scale", get_args(Scale)),
            ("length", get_args(Length)),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(
                    f"ToolRlReward.{name}={value!r} must be one of {', '.join(choices)}"
                )
        for name in ("format_range", "correct_range"):
            bounds = getattr(self, name)
            is_pair = isinstance(bounds, tuple) and len(bounds) == 2
            if not is_pair or not -np.inf < bounds[0] < bounds[1] < np.inf:
                raise ValueError(
                    f"ToolRlReward.{name}={bounds} must be two numbers that rise, as (-3, 3) do"
                )
        check_range(self, "switch_step", least=0)
        check_range(self, "scale_steps", "think_words", least=1)

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        del costs, history
        return [
            Score(reward=self._reward(trajectory, verdict), is_correct=verdict.is_correct)
            for trajectory, verdict in zip(group, verdicts, strict=True)
        ]

    def _reward(self, trajectory: Trajectory, verdict: Verdict) -> float:
        reference, text = trajectory.problem.answer, trajectory.final_text
        step = int(trajectory.policy_versions.max(initial=0))
        (low, high), (least, most) = self.ranges(step)
        calls = bool(expected_calls(reference))
        right = has_format(
            text, calls=calls, response="<response>" in reference or not calls, form=self.form
        )
        reward = high if right else low
        if calls:
            reward += least + verdict.score * (most - least)
        return reward + self._length(text, step)

    def ranges(self, step: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Of the format and of the correctness at an update."""
        (low, high), (least, most) = self.format_range, self.correct_range
        if self.scale == "two_stage":
            early = step < self.switch_step
            by, of = (1.0, 1 / 3) if early else (0.5, 1.0)
            return (low * by, high * by), (least * of, most * of)
        if self.scale == "smooth":
            p = min(step / self.scale_steps, 1.0)
            return (-2 + p, 2 - p), (-2 - p, 2 + p)
        return (low, high), (least, most)

    def _length(self, text: str, step: int) -> float:
        if self.length == "none":
            return 0.0
        p = min(step / self.scale_steps, 1.0) if self.length == "dynamic" else 0.0
        return min(thought_words(text) / (self.think_words * (1 + p)), 1.0)
