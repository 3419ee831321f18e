"""ToRL's form (2503.23383): a fenced program, which runs when the policy goes on with its output.

    ```python
    print(6 * 7)
    ```
    ```output

The stop is "```output", which the policy writes; the tool adds what stands below it. The program is the
last one before it. As in `policy_text`, fences in strings and comments of a program are text of it, and
a program whose own fence was forgotten ends there. A program that no output follows is not run.
"""

from jaxtool.core.calls import InvalidCall
from jaxtool.renderers.policy_text import PolicyTextReader, Stop, Tags
from jaxtool.renderers.tool_format import FENCED_CODE, FENCED_OUTPUT

FENCE = "```"


class FencedReader:
    """Reads one segment as it grows. What it says depends on the text alone, not on its pieces."""

    def __init__(self, tags: Tags, prefix: str = ""):
        """Args: prefix is what the renderer wrote before the policy, and is read as the policy's."""
        self._inner = PolicyTextReader(tags, prefix)
        self._text = prefix.encode("utf-8", "replace")
        self._prefix = len(prefix)
        self._fence: Stop | None = None  # may become FENCED_OUTPUT
        self._program: Stop | None = None  # the last one that was closed

    def feed(self, data: bytes) -> None:
        self._text += data
        self._inner.feed(data)

    def next_stop(self, *, is_end: bool = False) -> Stop | None:
        """The next "```output", or closing answer tag; None if there is none in what was fed so far."""
        while True:
            fence = self._fence or self._inner.next_stop(is_end=is_end)
            if fence is None or fence.kind == "answer":
                return fence
            if fence.call is not None:
                self._program = fence
            text = self._text.decode("utf-8", "replace")
            start = self._prefix + fence.end - len(FENCE)
            written = text[start : start + len(FENCED_OUTPUT)]
            if written == FENCED_OUTPUT:
                return self._call(fence.end + len(FENCED_OUTPUT) - len(FENCE))
            self._fence = fence if FENCED_OUTPUT.startswith(written) and not is_end else None
            if self._fence is not None:
                return None

    def _call(self, end: int) -> Stop:
        program, self._program, self._fence = self._program, None, None
        nothing = InvalidCall(reason=f"no {FENCED_CODE} block stands before {FENCED_OUTPUT}")
        call = nothing if program is None or program.call is None else program.call
        return Stop(kind="call", end=end, call=call)
