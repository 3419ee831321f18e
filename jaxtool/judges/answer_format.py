"""Where in a response the answer stands: its tag, its box, or a line that says so.

Covered: the last <answer> tag, the last box with balanced braces, a last line `Final Answer: 73`.
Not covered: what the answer is worth (the judges).

Give these functions policy text only (`Trajectory.final_text`): prompts and tool outputs hold
examples of tags and boxes.
"""

import dataclasses
import re
from typing import Literal

from jaxtool.core.types import Trajectory

AnswerStyle = Literal["boxed", "answer_tag", "response"]

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])[ \t]*")
_BARE_BOX = re.compile(r"[^\s$\\{}]+")  # \boxed 5
# At the start of a line, behind marks such as bold stars or a tick; the colon is needed.
_LABEL = re.compile(r"\W*(?:final\s+)?answer\s*(?:\*\*|__)?\s*:\s*(?:\*\*(?=\s))?\s*(.+)", re.I)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFormat:
    """How a response marks its answer.

    "boxed": the last box in the last tag, or all of the tag if it has no box; without a tag, the last box;
    without either, what follows `Answer:` or `Final Answer:` on the last line.
    "answer_tag": all of the last tag; nothing else is an answer.
    "response": all of the text, for judges that read calls or whole texts.

    A box is \\boxed{5}, \\boxed {5}, \\boxed 5 or \\fbox{5}. A last box that is cut off before its brace is no
    answer, unless nothing is in it yet: then it does not count. Tags may hold a blank, `<answer >`.
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

        A number that merely stands in the text is no answer. Nor, in style "boxed", is a tag's text whose
        braces do not match.
        """
        if self.style == "response":
            return text.strip() or None
        tagged = last_between(text, self.open, self.close)
        if self.style == "answer_tag":
            return tagged or None
        if tagged is not None and not _BOX.search(tagged):
            return _without_bold(tagged) or None if _is_balanced(tagged) else None
        where = text if tagged is None else tagged
        if not _BOX.search(where):
            return _labelled(where)
        return last_boxed(where) or None


def last_boxed(text: str) -> str | None:
    """Content of the last box; None without one, or if it is cut off before its brace."""
    boxes = list(_BOX.finditer(text))
    while boxes:
        start = boxes.pop().end()
        if text[start : start + 1] != "{":
            bare = _BARE_BOX.match(text, start)
            return bare[0].rstrip(".,;:") if bare else None
        stop = _closing_brace(text, start)
        if stop is not None:
            return text[start + 1 : stop].strip()
        if text[start + 1 :].strip():
            return None
    return None


def last_between(text: str, opening: str, closing: str) -> str | None:
    """What stands in the last complete pair of tags; None without one. A tag may hold blanks at its end."""
    stop = max((match.start() for match in _tag(closing).finditer(text)), default=-1)
    starts = [match.end() for match in _tag(opening).finditer(text, 0, max(stop, 0))]
    return text[starts[-1] : stop].strip() if starts else None


def _tag(tag: str) -> re.Pattern[str]:
    return re.compile(re.escape(tag[:-1]) + r"\s*>" if tag.endswith(">") else re.escape(tag))


def _closing_brace(text: str, start: int) -> int | None:
    """Where the group that opens at `start` closes; None: nowhere."""
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":  # an escaped brace is no brace
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return position
        position += 1
    return None


def _is_balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.S):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def _labelled(text: str) -> str | None:
    lines = text.strip().splitlines()
    match = _LABEL.fullmatch(lines[-1].strip()) if lines else None
    return _without_bold(match[1]) or None if match else None


def _without_bold(text: str) -> str:
    """`**73**` is 73; 2**3 stays."""
    match = re.fullmatch(r"\*\*([^*]+)\*\*", text.strip())
    return (match[1] if match else text).strip()
