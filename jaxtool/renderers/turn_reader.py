"""Reads calls that a whole turn holds, by one of `jaxtool.formats`: Hermes, Qwen3-Coder, Llama, ReAct.

Two kinds. Where the format has no stop text the policy's end token ends its turn: the collector then asks
with `is_end`, and the turn's calls are read at once, whatever stands before or behind them. Where it has
one (ReAct's `Observation:` at the head of a line) a call counts when the policy has written that.

Of several calls in a turn the first one is made, or none (`several_calls`). The others get no result.
"""

import codecs
import re

from jaxtool.formats.base import CallFormat
from jaxtool.formats.signatures import Signatures, invalid
from jaxtool.renderers.policy_text import Stop
from jaxtool.renderers.tool_format import SeveralCalls


class TurnReader:
    """Reads one segment as it grows. What it says depends on the text alone, not on its pieces."""

    def __init__(
        self,
        form: CallFormat,
        signatures: Signatures,
        prefix: str = "",
        *,
        several_calls: SeveralCalls = "first",
    ):
        """Args: prefix is what the renderer wrote before the policy, and is read as the policy's."""
        self._form = form
        self._signatures = signatures
        self._several = several_calls
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = prefix
        self._start = len(prefix)
        self._at = 0  # everything before it has been read
        self._is_over = False
        self._stop = re.compile(rf"^[ \t]*{re.escape(form.stop)}", re.MULTILINE)

    def feed(self, data: bytes) -> None:
        self._text += self._decoder.decode(data)

    def next_stop(self, *, is_end: bool = False) -> Stop | None:
        """The next call; None if there is none in what was fed so far.

        Args:
          is_end: the policy has ended its turn.
        """
        if self._form.stop:
            return self._before_stop()
        if not is_end or self._is_over:
            return None
        self._is_over = True
        self._text += self._decoder.decode(b"", final=True)
        return self._call_of(self._text, len(self._text))

    def _before_stop(self) -> Stop | None:
        while found := self._stop.search(self._text, self._at):
            written, self._at = self._text[self._at : found.start()], found.end()
            if (stop := self._call_of(written, found.end())) is not None:
                return stop
        return None

    def _call_of(self, written: str, end: int) -> Stop | None:
        calls = self._form.read_calls(written, self._signatures)
        if not calls:
            return None
        call, others = calls[0], len(calls) - 1
        if others and self._several == "refuse":
            call = invalid(f"{len(calls)} calls in one turn: make one, then read its result")
        return Stop(kind="call", end=end - self._start, call=call, unread=others)
