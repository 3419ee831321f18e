"""What rows may guess from, on the host: their own tokens, their siblings' and earlier answers' to the problem.

Rows with the same prompt answer the same problem. So the engine needs to be told nothing: the samples of a
group find each other, and a problem that comes again finds what was said to it, also in earlier steps.
Guesses change no token, so nothing of this is saved in checkpoints: a run that resumes begins without answers.
"""

import collections
from collections.abc import Container, Sequence

import numpy as np

from jaxtool.decode.draft_lookup import NOTHING

_Prompt = tuple[int, ...]


class DraftSources:
    """A corpus for each cache row: texts of others in E places, and the row's own tokens behind them.

    An example with E = 8: the row's prompt is 1 2, a sibling has written 5 6, an earlier answer was 7 8 9.

      corpus  [-1 7 8 9 -1 5 6 -1 | 1 2 .. ]

    The later a text stands, the rather it serves of two matches that are equally long: siblings come behind
    earlier answers, and newer answers behind older ones. What does not fit is cut off at the front.
    """

    def __init__(
        self,
        *,
        cache_rows: int,
        max_tokens: int,
        source_tokens: int,
        answers_kept: int,
        problems_kept: int,
    ):
        self.own_start = source_tokens
        self.corpus = np.full((cache_rows, source_tokens + max_tokens), NOTHING, np.int32)
        self._lengths = np.zeros(cache_rows, np.int64)  # known tokens of each row
        self._prompts: dict[int, _Prompt] = {}  # by cache row
        self._live: dict[_Prompt, list[int]] = {}  # cache rows
        self._answers: collections.OrderedDict[_Prompt, collections.deque[np.ndarray]] = (
            collections.OrderedDict()
        )
        self._answers_kept, self._problems_kept = answers_kept, problems_kept

    @property
    def running(self) -> Container[int]:
        """Cache rows that hold a row."""
        return self._prompts.keys()

    def has_answer(self, prompt: Sequence[int]) -> bool:
        """Whether an earlier answer to this prompt is kept."""
        return tuple(prompt) in self._answers

    def start(self, cache_row: int, prompt: Sequence[int]) -> None:
        """A row begins with its prompt."""
        key = tuple(prompt)
        self._prompts[cache_row] = key
        self._live.setdefault(key, []).append(cache_row)
        self._lengths[cache_row] = 0
        self.write(cache_row, 0, prompt)

    def write(self, cache_row: int, position: int, ids: Sequence[int] | np.ndarray) -> None:
        """Tokens of a row from `position` on; it knows none behind them."""
        begin = self.own_start + position
        self.corpus[cache_row, begin : begin + len(ids)] = ids
        self._lengths[cache_row] = position + len(ids)

    def end(self, cache_row: int) -> None:
        """The row is over: what it wrote behind its prompt is an earlier answer from now on."""
        prompt = self._prompts.pop(cache_row, None)
        if prompt is None:
            return
        live = self._live[prompt]
        live.remove(cache_row)
        if not live:
            del self._live[prompt]
        written = self._written(cache_row, len(prompt))
        if not self._answers_kept or not len(written):
            return
        answers = self._answers.setdefault(prompt, collections.deque(maxlen=self._answers_kept))
        answers.append(written.copy())
        self._answers.move_to_end(prompt)
        while len(self._answers) > self._problems_kept:
            self._answers.popitem(last=False)

    def refresh(self, cache_rows: Sequence[int]) -> None:
        """Puts what is known of others before the tokens of these rows."""
        filled: dict[_Prompt, np.ndarray] = {}
        for cache_row in cache_rows:
            prompt = self._prompts[cache_row]
            if prompt not in filled:
                filled[prompt] = self._texts_of_others(prompt)
            self.corpus[cache_row, : self.own_start] = filled[prompt]

    def _texts_of_others(self, prompt: _Prompt) -> np.ndarray:
        """[E]: also the row's own text, which ends where the row ends and so has nothing behind it."""
        texts = list(self._answers.get(prompt, ()))
        live = self._live.get(prompt, [])
        if len(live) > 1:
            texts += [self._written(row, len(prompt)) for row in live]
        out = np.full(self.own_start, NOTHING, np.int32)
        stop = self.own_start - 1  # a place without a token before the row's own
        for text in reversed([text for text in texts if len(text)]):
            begin = max(0, stop - len(text))
            out[begin:stop] = text[len(text) - (stop - begin) :]
            stop = begin - 1
            if stop <= 0:
                break
        return out

    def _written(self, cache_row: int, start: int) -> np.ndarray:
        return self.corpus[
            cache_row, self.own_start + start : self.own_start + self._lengths[cache_row]
        ]
