"""Which layout a file's rows have, found by reading the first of them with every layout that has a name.

A layout fits if it reads every one of these rows. Of those that fit, the one that reads most of a row counts: GSM8K's
rows have `question` and `answer` as `plain` says, and its pattern `#### 72` on top. Where two read different problems and
neither reads more, nobody knows, and the caller is asked.
"""

import dataclasses
import itertools
from pathlib import Path

from jaxtool.core.types import Problem
from jaxtool.data.layouts import PRESETS, Layout
from jaxtool.data.problem_rows import SetReader
from jaxtool.data.row_path import row_path
from jaxtool.data.rows import Row, read_rows, stem_of

_ROWS = 64  # looked at
_SHOWN = 8  # columns in a refusal


def guess_layout(source: str | Path) -> str:
    """The name of the layout that reads the file's first rows.

    Raises:
      FileNotFoundError, OSError: there is no such file or hub set.
      ValueError: no layout reads them, or several do and read different things; one line.
    """
    rows = list(itertools.islice(read_rows(source), _ROWS))
    if not rows:
        raise ValueError(f"{source}: the file holds no problem")
    found: dict[str, tuple[int, tuple[Problem, ...]]] = {}
    for name, preset in PRESETS.items():
        read = _read(rows, preset.layout, stem_of(source))
        if read is not None:
            found[name] = read
    if not found:
        columns = sorted(rows[0].columns)
        shown = ", ".join(columns[:_SHOWN]) + (", ..." if len(columns) > _SHOWN else "")
        raise ValueError(
            f"{rows[0].where}: no layout that has a name reads a row with {shown}: say where question and answer "
            "stand, as --layout 'question=prompt[-1].content, answer=reward_model.ground_truth'"
        )
    most = max(score for score, _ in found.values())
    best = {name: problems for name, (score, problems) in found.items() if score == most}
    if len(set(best.values())) > 1:
        raise ValueError(
            f"{source}: the layouts {', '.join(best)} read its rows, each in its own way: choose one by --layout"
        )
    return next(iter(best))


def _read(rows: list[Row], layout: Layout, stem: str) -> tuple[int, tuple[Problem, ...]] | None:
    """How much of the rows a layout reads, and what; None: it does not fit them."""
    try:
        problems = _problems(rows, layout, stem)
        plain = _problems(rows, dataclasses.replace(layout, question_end=""), stem)
    except ValueError:
        return None
    # NQ-open has lists of answers and no question mark at all. Other sets lack one here and there.
    end = layout.question_end
    if end and layout.answer == Layout().answer:
        is_marked = any(problem.question.endswith(end) for problem in plain)
        if is_marked or not isinstance(rows[0].values["answer"], list):
            return None
    # A path counts where a row has its column, a pattern where it takes something out of a text.
    paths = sum(row_path(path).column in rows[0].columns for path in layout.paths)
    patterns = 0
    for name in ("question_pattern", "answer_pattern"):
        if getattr(layout, name) is not None and _changes(rows, layout, name, stem, problems):
            patterns += 1
    return paths + patterns, problems


def _problems(rows: list[Row], layout: Layout, stem: str) -> tuple[Problem, ...]:
    reader = SetReader(layout, stem)
    for row in rows:
        reader.add(row)
    problems = reader.result(stem).problems
    if not problems:
        raise ValueError("no problem")
    return problems


def _changes(
    rows: list[Row], layout: Layout, name: str, stem: str, problems: tuple[Problem, ...]
) -> bool:
    """Whether the rows read otherwise without this pattern, or not at all."""
    try:
        return _problems(rows, dataclasses.replace(layout, **{name: None}), stem) != problems
    except ValueError:
        return True
