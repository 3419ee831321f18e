"""When a window drafts: what guesses were worth lately, against what a wider pass costs here.

Only for `rounding = "any"` can this change a token, and then only one on the edge between two; elsewhere both
kinds of window compute the same bits, and this decides about speed alone.
"""

import dataclasses
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.draft_sources import DraftSources
from jaxtool.decode.draft_window import DraftLog, DraftRows
from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.in_flight import InFlightWindow
from jaxtool.decode.programs import Window
from jaxtool.decode.sampling import SamplingMode

_Key = tuple[int, int, SamplingMode]  # width, view, sampling mode of a window
Agrees = Callable[[_Key, int], bool]  # see `draft_check`
_FRESH = 0.3  # weight of the last window in a running mean
_ASSUMED_COLUMN_COST = 0.3  # of a pass over one column, until both have been timed
_FIRST_GUESS = 0.5  # share of right guesses that a row is assumed to have
_MARGIN = 1.05  # drafts must promise so much more than the ordinary window: of several guesses the best is too good
_TIMED = 5  # the last windows whose median counts: one may have waited for a prefill, or for another process


@dataclasses.dataclass(kw_only=True)
class DraftCounts:
    """Totals since the engine was made."""

    windows: int = 0  # with drafts
    passes: int = 0  # of rows that ran, in windows with drafts
    guessed: int = 0  # tokens
    accepted: int = 0
    tokens: int = 0  # made in windows with drafts, forced ones included
    refused_programs: int = 0  # wide programs that round otherwise, see `draft_check`

    def metrics(self, windows: int) -> dict[str, float]:
        """Of a run whose engine has run so many windows; see `jaxtool.rundir.metric_table`."""
        return {
            "tokens/draft_guessed_total": self.guessed,
            "tokens/draft_accepted_total": self.accepted,
            "tokens/draft_windows_fraction": self.windows / max(1, windows),
            "tokens/draft_per_pass_mean": self.tokens / self.passes if self.passes else 1.0,
        }


class NoDrafts:
    """`Drafting` of an engine without drafts: every window is the ordinary one."""

    def __init__(self) -> None:
        self.counts = DraftCounts()

    def start(self, cache_row: int, prompt: Sequence[int]) -> None: ...

    def write(self, cache_row: int, position: int, ids: Sequence[int]) -> None: ...

    def end(self, cache_row: int) -> None: ...

    def choose(self, key: _Key, running: np.ndarray, agrees: Agrees) -> int:
        return 1

    def check(self, key: _Key, agrees: Agrees) -> tuple[int, ...]:
        return ()

    def rows(self, chosen: np.ndarray) -> DraftRows:
        raise RuntimeError("this engine has no drafts")

    def observe(
        self, window: InFlightWindow, made: Window, log: DraftLog | None, lengths: np.ndarray
    ) -> None: ...


class Drafting:
    """The state of drafts of one engine, on the host."""

    def __init__(self, config: DraftsConfig, *, cache_rows: int, max_tokens: int):
        self.config = config
        self.counts = DraftCounts()
        self.sources = DraftSources(
            cache_rows=cache_rows,
            max_tokens=max_tokens,
            source_tokens=config.source_tokens,
            answers_kept=config.answers_kept,
            problems_kept=config.problems_kept,
        )
        # Of each cache row: share of its passes with a guess, share of its guesses that were right.
        self._coverage = np.ones(cache_rows)
        self._right = np.full(cache_rows, _FIRST_GUESS)
        # What a new row is expected to do: as those did lately that had an earlier answer, or none, at their start.
        self._has_answer = np.zeros(cache_rows, int)
        self._mean_coverage, self._mean_right = np.ones(2), np.full(2, _FIRST_GUESS)
        self._waited = 0  # ordinary windows since drafts were tried
        self._drafted = 0  # windows with drafts since an ordinary one
        self._tries = 0
        self._pass_s: dict[tuple[_Key, int], float] = {}  # by window and columns
        self._timed: dict[tuple[_Key, int], deque[float]] = {}  # what it is the median of
        self._agrees: dict[tuple[_Key, int], bool] = {}  # by `draft_check`

    def start(self, cache_row: int, prompt: Sequence[int]) -> None:
        """A row begins: it is expected to guess as rows of its kind did lately."""
        self.sources.start(cache_row, prompt)
        kind = self._has_answer[cache_row] = int(self.sources.has_answer(prompt))
        self._coverage[cache_row] = self._mean_coverage[kind]
        self._right[cache_row] = self._mean_right[kind]

    def write(self, cache_row: int, position: int, ids: Sequence[int]) -> None:
        """Tokens of a row from `position` on, which it did not sample."""
        self.sources.write(cache_row, position, ids)

    def end(self, cache_row: int) -> None:
        self.sources.end(cache_row)

    def choose(self, key: _Key, running: np.ndarray, agrees: Agrees) -> int:
        """Columns of the next window; 1 is the ordinary one.

        Args:
          key: width, view and sampling mode.
          running: cache rows.
          agrees: whether the program of so many columns computes the ordinary window's bits.
        """
        if self.config.rounding == "same_program":
            return self.config.widest
        choices = self.check(key, agrees)
        if not choices:
            return 1
        if self._waited >= self.config.retry_windows:
            self._right[running] = np.maximum(self._right[running], self.config.least_accepted)
            self._tries += 1
            return choices[self._tries % len(choices)]
        if self._drafted >= self.config.retry_windows or self._knows_no_cost(key, choices):
            return 1  # to be timed: without it no width is known to pay
        worth = {c: self._tokens_per_pass(running, c) / self._cost(key, c) for c in choices}
        best = max(choices, key=lambda c: worth[c])
        return best if worth[best] > _MARGIN else 1

    def rows(self, chosen: np.ndarray) -> DraftRows:
        """Of the cache rows of a window, as host arrays; copies, for the window runs while they change."""
        count = len(self._right)
        self.sources.refresh([int(row) for row in chosen if row in self.sources.running])
        at = np.minimum(chosen, count - 1)
        is_drafting = self._right[at] >= self.config.least_accepted
        if self.config.rounding == "same_program":
            is_drafting = np.ones_like(is_drafting)
        return DraftRows(corpus=self.sources.corpus[at], is_drafting=is_drafting)

    def observe(
        self, window: InFlightWindow, made: Window, log: DraftLog | None, lengths: np.ndarray
    ) -> None:
        """Takes what a window did.

        Args:
          made: its log with a column for each cache row.
          log: of the guesses of its places; None of an ordinary window.
          lengths: [B] of all cache rows, after it.
        """
        chosen, seconds = window.chosen, time.perf_counter() - window.dispatched_s
        self._time(window.key, window.columns, seconds / max(1, int(made.steps)))
        # What was sampled is the end of a row: forced tokens come first.
        for cache_row in np.flatnonzero(made.is_sampled.any(axis=0)).tolist():
            ids = made.tokens[made.is_sampled[:, cache_row], cache_row]
            self.sources.write(cache_row, int(lengths[cache_row]) + 1 - len(ids), ids)
        self._waited = self._waited + 1 if log is None else 0
        self._drafted = 0 if log is None else self._drafted + 1
        if log is None:
            return
        is_row = (chosen < len(self._right)) & (log.passes > 0)
        rows = chosen[is_row]
        passes, with_guess = log.passes[is_row], log.with_guess[is_row]
        accepted, tested = log.accepted[is_row], (log.accepted + log.wrong)[is_row]
        self.counts.windows += 1
        self.counts.passes += int(passes.sum())
        self.counts.guessed += int(log.guessed[is_row].sum())
        self.counts.accepted += int(accepted.sum())
        self.counts.tokens += int((lengths[rows] - window.lengths[is_row]).sum())
        _blend(self._coverage, rows, with_guess / passes)
        was_tested = tested > 0
        _blend(self._right, rows[was_tested], accepted[was_tested] / tested[was_tested])
        for kind in (0, 1):
            of = self._has_answer[rows] == kind
            if of.any():
                _blend(self._mean_coverage, kind, with_guess[of].sum() / passes[of].sum())
            if tested[of].sum():
                _blend(self._mean_right, kind, accepted[of].sum() / tested[of].sum())

    def check(self, key: _Key, agrees: Agrees) -> tuple[int, ...]:
        """Columns that may take the ordinary window's place; asks about each program once."""
        if self.config.rounding == "exact":
            for columns in self.config.columns:
                if (key, columns) not in self._agrees:
                    self._agrees[key, columns] = agrees(key, columns)
                    self.counts.refused_programs += not self._agrees[key, columns]
        return tuple(c for c in self.config.columns if self._agrees.get((key, c), True))

    def _tokens_per_pass(self, running: np.ndarray, columns: int) -> float:
        """1 + coverage · Σ_{i=1}^{C-1} right^i, mean of the rows; 1 of a row that is rarely right.

        An example with C = 3: a row that has a guess in half of its passes and is right in half of its
        guesses makes 1 + 0.5 · (0.5 + 0.25) = 1.375 tokens a pass.
        """
        right, coverage = self._right[running], self._coverage[running]
        powers = right[:, None] ** np.arange(1, columns)[None]
        gain = np.where(right >= self.config.least_accepted, coverage * powers.sum(axis=1), 0.0)
        return 1.0 + float(gain.mean())

    def _knows_no_cost(self, key: _Key, choices: tuple[int, ...]) -> bool:
        return (key, 1) not in self._pass_s and not any(map(self._ratios, choices))

    def _cost(self, key: _Key, columns: int) -> float:
        """A pass over so many columns, in passes over one: of this key, else of all keys that have been timed."""
        known = self._ratios(columns)
        if key in known:
            return known[key]
        if known:
            return sum(known.values()) / len(known)
        return 1 + _ASSUMED_COLUMN_COST * (columns - 1)

    def _ratios(self, columns: int) -> dict[_Key, float]:
        """By key, where both kinds of window have been timed."""
        return {
            key: wide / self._pass_s[key, 1]
            for (key, c), wide in self._pass_s.items()
            if c == columns and (key, 1) in self._pass_s
        }

    def _time(self, key: _Key, columns: int, seconds: float) -> None:
        timed = key, columns
        if timed not in self._timed:  # its first window may have compiled
            self._timed[timed] = deque(maxlen=_TIMED)
            return
        self._timed[timed].append(seconds)
        self._pass_s[timed] = statistics.median(self._timed[timed])


def make_drafting(config: EngineConfig) -> Drafting | NoDrafts:
    """As `EngineConfig.drafts` says."""
    if config.drafts is None:
        return NoDrafts()
    return Drafting(config.drafts, cache_rows=config.num_cache_rows, max_tokens=config.max_tokens)


def _blend(means: np.ndarray, rows: np.ndarray | int, values: Any) -> None:
    means[rows] += _FRESH * (values - means[rows])
