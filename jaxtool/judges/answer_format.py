"""Where in a response the answer stands: its tag, its box.

Covered: the last <answer> tag, the last \\boxed{...} with balanced braces. Not covered: what the answer
is worth (the judges).

Give these functions policy text only (`Trajectory.final_text`): prompts and tool outputs hold
examples of tags and boxes.
"""

import dataclasses
from typing import Literal

from jaxtool.core.types import Trajectory

AnswerStyle = Literal["boxed", "answer_tag"]

_BOX = "\\boxed{"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """How a response marks its answer.

    "boxed": the box in the last tag, or all of the tag if it has no box; without a tag, the last box.
    "answer_tag": all of the last tag; nothing else is an answer.
    """

    style: AnswerStyle = "boxed"
    open: str = "<answer>"
    close: str = "</answer>"
    prefix: str = ""  # what the renderer writes at the head of every response

    def answer_text(self, trajectory: Trajectory) -> str:
        """The text in which the answer stands: of the policy after the last observation.

        A response without an observation begins with the prefix, which may open the answer's tag.
        """
        return (
            trajectory.final_text if trajectory.tool_calls else self.prefix + trajectory.final_text
        )

    def extract(self, text: str) -> str | None:
        """The answer in policy text, or None if there is none, or nothing in it.

        A number that merely stands in the text is no answer.
        """
        tagged = last_between(text, self.open, self.close)
        if self.style == "answer_tag":
            return tagged or None
        if tagged is not None and _BOX not in tagged:
            return tagged or None
        return last_boxed(text if tagged is None else tagged) or None


def last_boxed(text: str) -> str | None:
    """Content of the last \\boxed{...}; None without one, or if it is cut off before its brace."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":  # an escaped brace is no brace
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[start:position].strip()
        position += 1
    return None


def last_between(text: str, opening: str, closing: str) -> str | None:
    """What stands in the last complete pair of tags; None without one."""
    stop = text.rfind(closing)
    if stop < 0:
        return None
    start = text.rfind(opening, 0, stop)
    return None if start < 0 else text[start + len(opening) : stop].strip()
