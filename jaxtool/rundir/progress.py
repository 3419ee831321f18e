"""Shows how far a loop is: a live bar on a terminal, a plain line now and then elsewhere.

Prints only; keeps no metrics.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxtool.core.durations import format_duration
from jaxtool.parallel import hosts


def format_figures(figures: Mapping[str, float | str]) -> str:
    """`reward 0.53  calls 1.2` with three digits that matter."""
    texts = (v if isinstance(v, str) else f"{v:.3g}" for v in figures.values())
    return "  ".join(f"{name} {text}" for name, text in zip(figures, texts, strict=True))


class ProgressDisplay:
    """Progress of a loop of `total` steps.

    Args:
      title: what is done, such as "grpo".
      total: steps of the whole loop, those before a resume included.
      initial: steps that were done before this process.
      line_every_steps: without a terminal, print at least this often; None leaves it to the time.
      line_every_s: without a terminal, print when this much time has passed.
      console: where to print; by default standard output, of process 0 alone.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        initial: int = 0,
        line_every_steps: int | None = None,
        line_every_s: float = 10.0,
        console: Console | None = None,
    ):
        self._title, self._total, self._initial = title, total, initial
        self._line_every_steps, self._line_every_s = line_every_steps, line_every_s
        self._console = console or Console(quiet=not hosts.is_first())
        self._start_s = self._line_s = time.monotonic()
        self._step = self._line_step = initial
        self._figures: Mapping[str, float | str] = {}
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", style="bold"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self._console,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(title, total=total, completed=initial, figures="")

    def update(self, step: int, figures: Mapping[str, float | str] | None = None) -> None:
        """Says that `step` steps are done in all; `figures` are a few live numbers to show."""
        self._step, self._figures = step, figures or {}
        if self._bar is not None:
            text = format_figures(self._figures)
            self._bar.update(self._task, completed=step, figures=text)
            return
        is_time = time.monotonic() - self._line_s >= self._line_every_s
        is_step = (
            self._line_every_steps is not None and step - self._line_step >= self._line_every_steps
        )
        if is_time or is_step or step >= self._total:
            self._print_line()

    def note(self, text: str) -> None:
        """A line of its own, from any thread; on a terminal above the bar."""
        self._print(f"{self._title}  {text}")

    def _print_line(self) -> None:
        self._line_s, self._line_step = time.monotonic(), self._step
        elapsed_s = self._line_s - self._start_s
        done = self._step - self._initial
        remaining = "?"
        if done > 0:
            remaining = format_duration(elapsed_s / done * (self._total - self._step))
        percent = 100 * self._step // max(self._total, 1)
        self._print(
            f"{self._title}  {self._step}/{self._total}  {percent}%  "
            f"elapsed {format_duration(elapsed_s)}  left {remaining}  "
            f"{format_figures(self._figures)}".rstrip()
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._line_step != self._step:
            self._print_line()


@contextmanager
def progress_of(
    title: str, *, initial: int = 0, console: Console | None = None
) -> Iterator[Callable[[int, int, str], None]]:
    """Shows work that says itself how long it is: gives a function of (done, total, name of the last, or "").

    Nothing is shown before its first call. The arguments are those of `ProgressDisplay`.
    """
    with ExitStack() as stack:
        shown: list[ProgressDisplay] = []

        def report(done: int, total: int, name: str) -> None:
            if not shown:
                display = ProgressDisplay(title, total, initial=initial, console=console)
                shown.append(stack.enter_context(display))
            shown[0].update(done, {"": name} if name else {})

        yield report
