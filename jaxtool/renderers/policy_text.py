"""What the tags in a policy's text mean: which ends a program, which ends the response, which is text.

One reader follows the text of one segment: what the policy writes up to an observation. A program opens
at the opening code tag and is read by Python's lexical rules (`python_text`). The rule behind all cases:
outside of strings and comments no Python holds `</` or a backtick. So

1. a tag in a string or a comment of an open program is text of that program;
2. a closing code tag anywhere else ends the program, also where its fence was never closed;
3. an opening code tag anywhere else begins the program anew: what the policy abandoned is not run;
4. a closing answer tag ends the response if its opening tag stands before it in the same segment, and
   neither stands inside an open fence;
5. what stands between the tags of a tool that takes a text is that text: nothing in it is read, and any
   other tag begins anew;
6. a quote whose line ends without its partner opened no string, and its line is read again as code.
   So an apostrophe in prose, or a quote that was forgotten, swallows no more than its line.

Two cases stay open until more is written. A closing tag at the end of a comment counts once the policy
begins to write the observation itself straight after it. And a text that ends inside an open program
(a triple quote without its partner) is cut at its last closing tag; during a rollout such a program is
never run, because only the end of the response can tell.

The program is the last block that is marked as Python; without one, the last bare block, then the last
block of all; without a block, everything. Empty blocks count only where there are no others.
"""

import codecs
import dataclasses
import re
from typing import Literal, Protocol

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.renderers.fences import Fence, closes, fence_at, is_line_start
from jaxtool.renderers.python_text import NEVER, OPEN, PLAIN, end_of_string, quote_at
from jaxtool.renderers.tool_format import ToolTags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tags:
    """What the reader looks for; "" stands for a tag that there is not."""

    code_open: str = ""
    code_close: str = ""
    answer_open: str = ""
    answer_close: str = ""
    observation_open: str = ""
    calls: tuple[ToolTags, ...] = ()  # of tools that take a text, beside the code tool

    def texts(self) -> dict[str, str]:
        """Each tag by its name in patterns; the n-th pair of `calls` is call_n_open, call_n_close."""
        own = {name: tag for name, tag in vars(self).items() if tag and name != "calls"}
        for n, pair in enumerate(self.calls):
            own |= {f"call_{n}_open": pair.open, f"call_{n}_close": pair.close}
        return own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """What counts in a text: a call, or the end of the answer."""

    kind: Literal["call", "answer"]
    end: int  # index just past the tag in the segment's text, its prefix left out
    call: Call | InvalidCall | None = None  # None in a call: there is nothing to run
    unread: int = 0  # further calls of the same turn, which are not made


class Reader(Protocol):
    """Reads one segment as it grows, in pieces of any size."""

    def feed(self, data: bytes) -> None: ...

    def next_stop(self, *, is_end: bool = False) -> Stop | None:
        """The next thing that counts; None if there is none in what was fed so far.

        Args:
          is_end: nothing follows, so that what is open ends here.
        """
        ...


@dataclasses.dataclass(kw_only=True)
class _Block:
    rank: int  # 2: marked as Python, 1: bare, 0: marked as something else
    start: int
    stop: int = -1  # -1: still open
    indent: int = 0  # of its fence


class PolicyTextReader:
    """Reads one segment as it grows. What it says depends on the text alone, not on its pieces.

    reader.feed(b"<code>print('</code>')")
    reader.next_stop()                  # None: the tag is in a string
    reader.feed(b"</code>")
    reader.next_stop()                  # Stop(kind="call", call=Call.python("print('</code>')"))
    """

    def __init__(self, tags: Tags, prefix: str = ""):
        """Args: prefix is what the renderer wrote before the policy, and is read as the policy's."""
        self._tags = tags
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = prefix
        self._start = len(prefix)
        self._at = 0  # everything before it has been read
        self._body = -1  # where the open program's text begins; -1: none is open
        self._pair_body = 0  # where the text of `_pair` begins
        self._blocks: list[_Block] = []
        self._fence: Fence | None = None
        self._is_answer_open = not tags.answer_open
        self._string_lines: set[int] = set()  # starts of lines that begin inside a string
        self._plain_until = 0  # f-strings before this are read as other strings
        self._pair: ToolTags | None = None  # the open call of a tool that takes a text
        texts = tags.texts()
        longest_first = sorted(texts, key=lambda name: -len(texts[name]))
        # In a program its closing tag goes first, so that ``` ends one that ```python opened.
        in_program = sorted(longest_first, key=lambda name: name != "code_close")
        outside = [name for name in longest_first if name != "observation_open"]
        self._outside = _pattern(texts, outside)
        self._in_prose = _pattern(texts, in_program, "|".join(_fence_marks(tags)))
        marks = ["\\\\.", "['\"#]", *_fence_marks(tags)]
        self._in_code = _pattern(texts, in_program, "|".join(marks))
        self._longest = max(map(len, texts.values()), default=1)

    def feed(self, data: bytes) -> None:
        self._text += self._decoder.decode(data)

    def next_stop(self, *, is_end: bool = False) -> Stop | None:
        """The next tag that counts; None if there is none in what was fed so far.

        Args:
          is_end: nothing follows, so that an open program ends at its last closing tag.
        """
        while True:
            pattern = (
                self._outside
                if self._body < 0
                else self._in_prose
                if self._is_prose
                else self._in_code
            )
            found = pattern.search(self._text, self._at)
            if found is None:
                self._at = max(self._at, len(self._text) - self._longest)
                break
            self._at = found.start()
            stop = self._read(found, is_end)
            if stop is not None:
                return stop
            if self._at == found.start():
                break  # what stands here is not complete yet
        return self._cut_at_end() if is_end and self._body >= 0 else None

    @property
    def _is_prose(self) -> bool:
        """Behind a closed fence of the program: what follows is no Python."""
        return bool(self._blocks) and self._fence is None

    def _read(self, found: re.Match[str], is_end: bool) -> Stop | None:
        """Takes what was found and moves on behind it; stays before it if it is not complete."""
        name = found.lastgroup
        if name is not None:
            return self._tag(name, found.end(), is_end)
        mark = found.group()
        if mark[0] in "'\"":
            self._string()
        elif mark[0] == "#":
            newline = self._text.find("\n", self._at)
            self._at = newline if newline >= 0 else self._at
        elif mark[0] == "\\":
            self._at = found.end()
        else:
            self._fence_mark(is_end)
        return None

    def _tag(self, name: str, end: int, is_end: bool) -> Stop | None:
        tags, is_program = self._tags, self._body >= 0
        if not is_program and not is_end and self._may_become(tags.code_open):
            return None  # ``` may become ```python
        start, self._at = self._at, end
        pair, self._pair = self._pair, None
        if name.startswith("call_"):
            return self._call_tag(name, pair, start, end)
        if name == "code_open":
            self._open_program()
        elif name == "code_close":
            program = self._program(start) if is_program else ""
            self._close_program()
            return self._call(program, end)
        elif name == "observation_open":
            return self._own_observation(start)
        elif self._fence is not None:
            pass
        elif name == "answer_open":
            self._is_answer_open = True
        elif self._is_answer_open:
            self._close_program()
            return Stop(kind="answer", end=end - self._start)
        return None

    def _call_tag(self, name: str, opened: ToolTags | None, start: int, end: int) -> Stop | None:
        """A tag of a tool that takes a text; `opened` is the pair whose opening tag was the last tag."""
        named = self._tags.calls[int(name.split("_")[1])]
        text = self._text[self._pair_body : start] if opened is named else ""
        self._close_program()
        if name.endswith("_open"):
            self._pair, self._pair_body = named, end
            return None
        return Stop(kind="call", end=end - self._start, call=named.read(text))

    def _may_become(self, tag: str) -> bool:
        """True if the text ends inside `tag`."""
        is_short = len(self._text) - self._at < len(tag)
        return is_short and tag.startswith(self._text[self._at :])

    def _open_program(self) -> None:
        self._body, self._blocks, self._fence = self._at, [], None
        self._string_lines.clear()

    def _close_program(self) -> None:
        self._body, self._blocks, self._fence = -1, [], None

    def _own_observation(self, start: int) -> Stop | None:
        """The policy writes an observation: a closing tag straight before it ended the program."""
        close = self._text.rfind(self._tags.code_close, self._body, start)
        end = close + len(self._tags.code_close)
        if close < 0 or self._text[end:start].strip():
            return None
        program = self._program(close)
        self._close_program()
        return self._call(program, end)

    def _call(self, program: str, end: int) -> Stop:
        call = Call.python(program) if program else None
        return Stop(kind="call", end=end - self._start, call=call)

    def _string(self) -> None:
        depth = PLAIN if self._at < self._plain_until else 0
        end = end_of_string(self._text, self._at, depth)
        if end == OPEN:
            return
        if end == NEVER:
            newline = self._text.find("\n", self._at)
            self._plain_until = newline if newline >= 0 else len(self._text)
            self._at += len(quote_at(self._text, self._at))
            return
        newlines = re.finditer("\n", self._text[self._at : end])
        self._string_lines.update(self._at + newline.end() for newline in newlines)
        self._at = end

    def _fence_mark(self, is_end: bool) -> None:
        """A run of three or more backticks or tildes outside of strings."""
        fence = fence_at(self._text, self._at, self._body, is_end=is_end)
        if fence is None:
            return
        if self._fence is None:
            self._at = fence.end
            if fence.opens:
                self._open_block(fence)
            return
        if not closes(fence, self._fence, self._text, self._at):
            self._at = fence.run_end
            return
        self._blocks[-1].stop = self._at
        self._fence = None
        self._at = fence.run_end
        if fence.opens and fence.rank == 2:  # the next block opens where this one was not closed
            self._at = fence.end
            self._open_block(fence)

    def _open_block(self, fence: Fence) -> None:
        self._fence = fence
        self._blocks.append(_Block(rank=fence.rank, start=fence.end, indent=fence.indent))

    def _program(self, stop: int) -> str:
        """What the open program would run if it ended at `stop`."""
        if not self._blocks:
            return self._cleaned(_Block(rank=0, start=self._body, stop=stop))
        for block in self._blocks:
            block.stop = block.stop if 0 <= block.stop <= stop else stop
        texts = [(self._cleaned(block), block.rank) for block in self._blocks]
        best = max((rank for text, rank in texts if text), default=-1)
        return next((text for text, rank in reversed(texts) if text and rank == best), "")

    def _cut_at_end(self) -> Stop:
        close = self._text.rfind(self._tags.code_close, self._body)
        stop = close if close >= 0 else len(self._text)
        if self._fence is not None and (
            closing := _CLOSING_FENCE.search(self._text, self._body, stop)
        ):
            stop = max(closing.start(), self._blocks[-1].start)
        program = self._program(stop)
        self._at = len(self._text)
        self._close_program()
        return self._call(program, self._at)

    def _cleaned(self, block: _Block) -> str:
        """The block without the blanks around it and without the indent that all of it has.

        Lines that begin inside a string keep what they have: `if True:` above them would change nothing.
        """
        lines, is_string = [], []
        at = block.start
        starts_line = is_line_start(self._text, at, self._body) and at > self._body
        for number, line in enumerate(self._text[block.start : block.stop].split("\n")):
            blanks = len(line) - len(line.lstrip(" \t"))
            cut = min(block.indent, blanks) if number or starts_line else blanks
            lines.append(line[cut:])
            is_string.append(at in self._string_lines)
            at += len(line) + 1
        kept = 0 if starts_line or lines[0].strip() else 1
        while kept < len(lines) and not lines[kept].strip():
            kept += 1
        lines, is_string = lines[kept:], is_string[kept:]
        # Code on the line of the tag: the lines below it have an indent of their own.
        first = (
            1 if not starts_line and not kept and not lines[0].rstrip().endswith(_GOES_ON) else 0
        )
        text = lines[:first] + _dedented(lines[first:], is_string[first:])
        return "\n".join(text).rstrip()


_CLOSING_FENCE = re.compile(r"\n[ \t]*(?:`{3,}|~{3,})\s*\Z")
_GOES_ON = (":", "(", "[", "{", ",", "\\")


def _dedented(lines: list[str], is_string: list[bool]) -> list[str]:
    """`lines` without the indent of the first; unchanged if a line of code has less."""
    code = [
        line for line, inside in zip(lines, is_string, strict=True) if line.strip() and not inside
    ]
    code = [line for line in code if not line.lstrip().startswith("#")]
    margin = code[0][: len(code[0]) - len(code[0].lstrip(" \t"))] if code else ""
    is_common = all(line.startswith(margin) for line in code)
    if not margin or not is_common:
        return lines
    return [
        line if inside else line.removeprefix(margin)
        for line, inside in zip(lines, is_string, strict=True)
    ]


def _fence_marks(tags: Tags) -> list[str]:
    """Fences, unless the tags are made of them (```python ... ```)."""
    both = tags.code_open + tags.code_close
    return [f"{mark}{{3,}}" for mark in "`~" if mark * 3 not in both]


def _pattern(texts: dict[str, str], names: list[str], others: str = "") -> re.Pattern[str]:
    parts = [f"(?P<{name}>{re.escape(texts[name])})" for name in names]
    return re.compile("|".join([*parts, others] if others else parts) or r"(?!)", re.DOTALL)
