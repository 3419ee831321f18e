"""Both answers to questions that flipped, side by side: on the console and in the page.

Texts are untrusted: they are shown as text, without control characters, so that none can move the cursor.
"""

import dataclasses

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from jaxtool.report.answer_pairs import AnswerPair, AnswerText, answer_text, fitting
from jaxtool.report.page import Section
from jaxtool.report.table_files import printable
from jaxtool.study.paired_answers import Pair
from jaxtool.study.paired_tables import flipped, shown_answers
from jaxtool.study.policy_comparison import Compared, PolicyComparison

MAX_PAIRS = 200  # of a comparison in the page
_MAX_LINES = 40  # of an answer on the console; a longer one loses its middle


def sections(found: PolicyComparison) -> list[tuple[Compared, Section]]:
    """A section for each comparison in which questions flipped."""
    made = []
    for one in found.compared:
        changed = flipped(one)
        pairs = fitting([answer_pair(one, seed, pair) for seed, pair in changed[:MAX_PAIRS]])
        if not pairs:
            continue
        shown = "all" if len(pairs) == len(changed) else f"the first {len(pairs)}"
        section = Section(
            title=f"{one.title}, side by side",
            note=f"{len(changed)} questions flipped, {shown} are here, the largest change first. Of several answers the "
            "page shows a right one of the better side and a wrong one of the other.",
            pairs=pairs,
        )
        made.append((one, section))
    return made


def answer_pair(one: Compared, seed: int, pair: Pair) -> AnswerPair:
    """The answers that show the change of one question."""
    old, new = shown_answers(pair)
    words = "gained" if pair.gain > 0 else "lost"
    of_seed = f", seed {seed}" if len(one.seeds) > 1 else ""
    level = f" ({pair.level})" if pair.level else ""
    return AnswerPair(
        title=f"{pair.problem_id}{level}{of_seed}: {words}",
        question=old.question,
        references=old.references,
        left=answer_text(old, one.old),
        right=answer_text(new, one.new),
    )


def print_pairs(found: PolicyComparison, count: int, console: Console | None = None) -> int:
    """Prints the first `count` questions of each comparison that flipped; returns how many it printed."""
    console = console or Console()
    printed = 0
    for one in found.compared:
        for seed, pair in flipped(one)[:count]:
            shown = answer_pair(one, seed, pair)
            _print(dataclasses.replace(shown, title=f"{one.title}: {shown.title}"), console)
            printed += 1
    return printed


def _print(pair: AnswerPair, console: Console) -> None:
    head = Text(printable(pair.question))
    head.append(f"\nreference: {printable(' or '.join(pair.references))}", style="bold")
    grid = Grid.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*map(_column, (pair.left, pair.right)))
    title = Text(printable(pair.title), style="bold")
    console.print(Panel(Group(head, grid), title=title, title_align="left"))


def _column(answer: AnswerText) -> Panel:
    body = Text(overflow="fold")
    for author, text in answer.parts:
        body.append(printable(text).replace("\r", "\n"), style="green" if author == "tool" else "")
    verdict = "right" if answer.is_correct else "wrong"
    final = "no answer" if answer.final_answer is None else f"answer {answer.final_answer}"
    facts = printable(f"{verdict}, {final}, {', '.join(answer.facts)}")
    title = Text(printable(answer.name), style="bold")
    style = "green" if answer.is_correct else "red"
    return Panel(
        Group(Text(facts, style=style), Text(), _shortened(body)),
        title=title,
        title_align="left",
        border_style=style,
    )


def _shortened(text: Text) -> Text:
    lines = list(text.split("\n", allow_blank=True))
    if len(lines) <= _MAX_LINES:
        return text
    half = _MAX_LINES // 2
    gap = Text(f"[... {len(lines) - 2 * half} lines ...]", style="dim")
    return Text("\n").join([*lines[:half], gap, *lines[-half:]])
