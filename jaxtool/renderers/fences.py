"""Fences of code blocks, in every spelling that models use.

Covered: three or more backticks or tildes; python, py, Python3, {.python} and their like, blanks around
the word, other words, none; code on the line of the fence; fences inside a line, if a line's end follows.
Not covered: which of several blocks is the program (`policy_text`).
"""

import dataclasses
import re

# The run, blanks, a word or {...}, blanks, and whether the line ends there.
_WORD = r"\{[^}\n]*\}|[A-Za-z][\w.+#:/,-]*"
_FENCE = re.compile(rf"(`{{3,}}|~{{3,}})[ \t]*({_WORD}|)[ \t]*(\r?\n)?")
_GROWS = re.compile(r"(?:\{[^}\n]*|\r?)\Z")  # what may become a word or the line's end
_PYTHON = re.compile(r"\{?[ .]*(?:i?python|py)[\d.]*(?:[ ,:].*)?\}?", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fence:
    """A run of backticks or tildes outside of strings, read as one that opens a block."""

    mark: str
    rank: int  # 2: marked as Python, 1: bare, 0: marked as something else
    run_end: int
    end: int  # where the block's text begins
    opens: bool  # False: nothing that opens a block
    indent: int  # characters before it, if they are blanks


def is_line_start(text: str, at: int, start: int) -> bool:
    """True if only blanks stand between `at` and the start of its line, or `start`."""
    return not text[max(text.rfind("\n", 0, at) + 1, start) : at].strip(" \t\r")


def fence_at(text: str, at: int, start: int, *, is_end: bool) -> Fence | None:
    """The run at `at`; None if the text ends before it is clear what it is.

    Args:
      start: where the program's text begins: as good as the start of a line.
    """
    found = _FENCE.match(text, at)
    assert found is not None
    run, word, newline = found.groups()
    run_end = found.end(1)
    if not is_end and not newline and _GROWS.match(text, found.end()):
        return None
    starts_line = is_line_start(text, at, start)
    is_python = bool(_PYTHON.fullmatch(word))
    rank = 2 if is_python else 0 if word else 1
    end = found.end()
    if not newline and not is_python:  # code on the line of a bare fence
        rank, end = 1, run_end
    if run[0] == "~":  # ~~~x is Python
        opens = starts_line and bool(newline) and (is_python or not word)
    else:
        opens = starts_line or bool(newline) or is_python
    line = max(text.rfind("\n", 0, at) + 1, start)
    indent = at - line if starts_line else 0
    return Fence(mark=run, rank=rank, run_end=run_end, end=end, opens=opens, indent=indent)


def closes(fence: Fence, opened: Fence, text: str, at: int) -> bool:
    """True if the run `fence` at `at` closes the block of `opened`."""
    if fence.mark[0] != opened.mark[0] or len(fence.mark) < len(opened.mark):
        return False
    if fence.mark[0] == "`":
        return True
    newline = text.find("\n", fence.run_end)
    line = text[fence.run_end : newline if newline >= 0 else len(text)].strip()
    return is_line_start(text, at, opened.end) and (not line or line.startswith("<"))
