"""Thoughts in a turn: what stands between <think> and </think> is no call, whatever it looks like."""

import re

OPEN, CLOSE = "<think>", "</think>"


class Scan:
    """Finds the next opening tag of a call outside of thoughts, from left to right.

    A </think> without its <think> closes thoughts that began in the prompt (templates of reasoning
    models end in <think>): `restarted` says that what was found before it were thoughts. Only the
    first one can: a later one is text.
    """

    def __init__(self, text: str, opening: str):
        self._text = text
        self._pattern = re.compile("|".join(map(re.escape, (OPEN, CLOSE, opening))))
        self._opening = opening
        self._seen = False
        self.at = 0  # the caller moves it behind a call
        self.restarted = False

    def next_call(self) -> int | None:
        """Index behind the next opening tag; None: there is none."""
        self.restarted = False
        while found := self._pattern.search(self._text, self.at):
            self.at = found.end()
            if found[0] == self._opening:
                return self.at
            if found[0] == OPEN:
                close = self._text.find(CLOSE, self.at)
                self.at = close + len(CLOSE) if close >= 0 else len(self._text)
            elif not self._seen:
                self.restarted = True
            self._seen = True
        return None


def without_thoughts(text: str) -> str:
    """The text behind its thoughts; "" where they have no end."""
    head, mark, rest = text.partition(CLOSE)
    if mark:
        return without_thoughts(rest) if OPEN in rest else rest
    return head.partition(OPEN)[0]
