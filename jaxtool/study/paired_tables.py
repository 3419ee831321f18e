"""Tables, picture and page of a comparison of policies.

Accuracy and shares are in percent, their differences in points. Columns of one comparison carry the names of its two
sides. Not covered: answers side by side (`side_by_side`).
"""

import dataclasses
from collections.abc import Iterator, Sequence

from jaxtool.behaviour.two_runs import SHARES
from jaxtool.report.page import Curve, Headline, Report, Section, Table
from jaxtool.rundir.answer_files import Condition
from jaxtool.rundir.answer_records import AnswerRecord
from jaxtool.study.accuracy_over_calls import Spot, accuracy_over_calls, spot_of_answers
from jaxtool.study.intervals import t_interval
from jaxtool.study.paired_answers import Pair
from jaxtool.study.paired_figures import Change, Measure, Range, differences
from jaxtool.study.policy_comparison import Compared, PolicyComparison

MAX_FLIPPED = 1000  # rows of a table of questions that changed
Row = tuple[str | float | int | None, ...]
_SHOWN: dict[Measure, tuple[str, float, int]] = {  # name, scale, digits
    "accuracy": ("accuracy %", 100.0, 1),
    "tool_calls": ("calls (TC)", 1.0, 2),
    "tool_productivity": ("productivity (TP)", 1.0, 2),
    "policy_tokens": ("tokens", 1.0, 1),
}
_OVER = ("questions", "seeds", "seeds and questions")


def summary_tables(found: PolicyComparison) -> tuple[Table, ...]:
    """Tables with a line for each comparison."""
    return (_tests(found), _behaviour(found), _rests_on(found))


def tables_of(one: Compared) -> tuple[Table, ...]:
    """Tables of one comparison; those without rows are left out."""
    made = (_differences(one), _levels(one), _flipped(one))
    return tuple(table for table in made if table.rows)


def pictures(found: PolicyComparison) -> tuple[Curve, ...]:
    """Accuracy over calls, one picture for each way of sampling; budgets of one policy are joined."""
    curves = []
    for sampling in dict.fromkeys(condition.sampling for condition in found.conditions):
        own = [condition for condition in found.conditions if condition.sampling == sampling]
        spots: list[Spot] = [
            spot_of_answers(
                found.answers[side.name, condition], name=side.name, label=_budget(condition)
            )
            for side in found.sides
            for condition in sorted(own, key=lambda c: (c.has_tools, c.max_tool_calls))
        ]
        curves.append(accuracy_over_calls(spots, title=f"Accuracy over calls, {sampling}"))
    return tuple(curves)


def comparison_page(
    found: PolicyComparison, pairs: Sequence[tuple[Compared, Section]] = ()
) -> Report:
    """The page: differences at the top, the picture, what holds for all, then each comparison.

    Args:
      pairs: a section with answers side by side for some of the comparisons.
    """
    first, *others = (side.name for side in found.sides)
    by_title = {one.title: section for one, section in pairs}
    each = []
    for one in found.compared:
        each.append(Section(title=one.title, tables=tables_of(one)))
        if one.title in by_title:
            each.append(by_title[one.title])
    return Report(
        title=f"{', '.join(others)} against {first}",
        subtitle="; ".join(
            f"{side.name}: {', '.join(map(str, side.seeds))}" for side in found.sides
        ),
        variants=tuple(side.name for side in found.sides),
        headlines=tuple(map(_headline, found.compared)),
        sections=(
            Section(
                title="Overview",
                note=" ".join(f"{note}." for note in found.notes),
                tables=summary_tables(found),
                curves=pictures(found),
            ),
            *each,
        ),
        answers=tuple(_answers(found)),
    )


def _answers(found: PolicyComparison) -> Iterator[AnswerRecord]:
    """Every answer under the names of the sides, for the page's viewer."""
    for side in found.sides:
        for condition in found.conditions:
            for seed, records in enumerate(found.answers[side.name, condition]):
                name = side.name if len(side.seeds) == 1 else f"{side.name}, seed {seed}"
                yield from (dataclasses.replace(record, policy=name) for record in records)


def flipped(found: Compared) -> list[tuple[int, Pair]]:
    """(seed, pair) of the questions whose accuracy changed, the largest change first, losses before gains."""
    changed = [(i, pair) for i, seed in enumerate(found.seeds) for pair in seed.pairs if pair.gain]
    return sorted(changed, key=lambda one: (-abs(one[1].gain), one[1].gain, one[0]))


def shown_answers(pair: Pair) -> tuple[AnswerRecord, AnswerRecord]:
    """(old, new): the first right answer of the better side and the first wrong one of the other."""
    is_gain = pair.gain > 0

    def first(side: Sequence[AnswerRecord], wanted: bool) -> AnswerRecord:
        return next((answer for answer in side if answer.is_correct is wanted), side[0])

    return first(pair.old, not is_gain), first(pair.new, is_gain)


def _headline(one: Compared) -> Headline:
    accuracy, calls = one.found.changes["accuracy"], one.found.changes["tool_calls"]
    interval = _range(accuracy.intervals[-1], 100, 1) if accuracy.intervals else "one question"
    return Headline(
        label=one.title,
        value=f"{100 * (accuracy.difference or 0):+.1f} points",
        note=f"{interval}; calls {calls.difference or 0:+.2f} an answer",
    )


def _differences(one: Compared) -> Table:
    """A line for each figure."""
    columns = _OVER if len(one.seeds) > 1 else _OVER[:1]
    test = one.found.test
    return Table(
        title="Differences",
        columns=("figure", one.old, one.new, "difference", *(f"95 % over {x}" for x in columns)),
        rows=tuple(
            (*_cells(name, change), *_intervals(name, change, columns))
            for name, change in one.found.changes.items()
        ),
        note=f"{_resting(one)} Accuracy: share of right answers (avg@k), its difference in points. Calls and tokens: of an "
        "answer. TP: right answers a call (OTC-PO, section 2.1), – where there is no call. "
        f"{test.name}: {test.better} questions better, {test.worse} worse, p = {test.p:.2g}.",
    )


def _resting(one: Compared) -> str:
    """`Rests on 58 questions; left out: 2 with a lost answer, 0 only of base, 0 only of last.`"""
    lost, only_old, only_new = _left_out(one)
    return (
        f"Rests on {one.questions} questions; left out: {lost} with a lost answer, {only_old} only of {one.old}, "
        f"{only_new} only of {one.new}."
    )


def _left_out(one: Compared) -> tuple[int, int, int]:
    return (
        sum(seed.with_lost for seed in one.seeds),
        sum(seed.only_old for seed in one.seeds),
        sum(seed.only_new for seed in one.seeds),
    )


def _cells(name: Measure, change: Change) -> Row:
    label, scale, digits = _SHOWN[name]

    def shown(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{scale * value:{sign}.{digits}f}"

    return (label, shown(change.old), shown(change.new), shown(change.difference, "+"))


def _intervals(name: Measure, change: Change, columns: Sequence[str]) -> Row:
    _, scale, digits = _SHOWN[name]
    by_over = {one.over: _range(one, scale, digits) for one in change.intervals}
    return tuple(by_over.get(over, "–") for over in columns)


def _range(found: Range, scale: float, digits: int) -> str:
    return f"{scale * found.low:+.{digits}f}..{scale * found.high:+.{digits}f}"


def _levels(one: Compared) -> Table:
    """Accuracy and calls by level or data set; no rows where all questions are of one."""
    levels = dict.fromkeys(level for seed in one.seeds for level in seed.levels)
    over = _OVER[-1] if len(one.seeds) > 1 else _OVER[0]
    rows: list[Row] = []
    for level in levels if len(levels) > 1 else ():
        parts = [part for seed in one.seeds if (part := seed.of_level(level)).pairs]
        changes = differences(parts).changes
        accuracy, calls = changes["accuracy"], changes["tool_calls"]
        rows.append(
            (
                *(level, sum(len(part.pairs) for part in parts)),
                *_cells("accuracy", accuracy)[1:],
                *_intervals("accuracy", accuracy, (over,)),
                *_cells("tool_calls", calls)[1:3],
            )
        )
    return Table(
        title="By level",
        columns=(
            *("level", "questions", f"{one.old} %", f"{one.new} %", "difference"),
            *(f"95 % over {over}", f"{one.old} calls", f"{one.new} calls"),
        ),
        rows=tuple(rows),
        note="Accuracy in percent, its difference in points; calls of an answer.",
    )


def _flipped(one: Compared) -> Table:
    changed = flipped(one)
    note = f"{len(changed)} of {one.questions} questions, the largest change first, losses before gains."
    if len(changed) > MAX_FLIPPED:
        note += f" The first {MAX_FLIPPED:,} are here; --json has all."
    seed = ("seed",) if len(one.seeds) > 1 else ()
    return Table(
        title="Questions that flipped",
        columns=(
            *seed,
            *("question", "level", f"{one.old} right", f"{one.new} right"),
            *(f"{one.old} calls", f"{one.new} calls"),
            *(f"{one.old} answer", f"{one.new} answer", "reference"),
        ),
        rows=tuple(
            (*((i,) if seed else ()), *_flipped_row(pair)) for i, pair in changed[:MAX_FLIPPED]
        ),
        note=note,
    )


def _flipped_row(pair: Pair) -> Row:
    def right(side: Sequence[AnswerRecord]) -> str:
        count = sum(answer.is_correct for answer in side)
        return ("yes" if count else "no") if len(side) == 1 else f"{count} of {len(side)}"

    def calls(side: Sequence[AnswerRecord]) -> str:
        return f"{sum(answer.num_calls for answer in side) / len(side):.3g}"

    old, new = shown_answers(pair)
    return (
        *(pair.problem_id, pair.level or "–", right(pair.old), right(pair.new)),
        *(calls(pair.old), calls(pair.new)),
        *(_final(old.final_answer), _final(new.final_answer), _final(old.references[0])),
    )


def _final(text: str | None) -> str:
    if text is None:
        return "none"
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."


def _tests(found: PolicyComparison) -> Table:
    rows: list[Row] = []
    for one in found.compared:
        test, accuracy = one.found.test, one.found.changes["accuracy"]
        gap = f"{100 * (accuracy.difference or 0):+.1f}"
        counts = (test.better, test.worse, f"{test.p:.2g}", f"{one.p_holm:.2g}")
        rows.append((*_names(one, found), gap, test.name, *counts))
    return Table(
        title="Accuracy, tested",
        columns=(*_name_columns(found), "points", "test", "better", "worse", "p", "p, Holm"),
        rows=tuple(rows),
        note="Points: difference of accuracy. Better, worse: questions on which the accuracy of the second policy is "
        "higher, lower. p is two-sided; p, Holm is corrected for the number of lines.",
    )


def _behaviour(found: PolicyComparison) -> Table:
    return Table(
        title="What changed in behaviour: share of the questions, %",
        columns=(*_name_columns(found), *SHARES),
        rows=tuple(
            (*_names(one, found), *(_share(one, name) for name in SHARES)) for one in found.compared
        ),
        note="ME more efficient: the same verdict with fewer calls; LE less efficient: with more; MA more accurate: right "
        "where the first side is wrong; LA less accurate; AE the part of MA with fewer calls (OTC-PO, Table 3). Intervals "
        "are of 95 %, over questions, or over seeds where there are several.",
    )


def _share(one: Compared, name: str) -> str:
    values = [100 * seed.shares[name] for seed in one.behaviour]
    shown = f"{sum(values) / len(values):.1f}"
    if len(values) > 1:
        found = t_interval(values)
        return f"{shown} ({found.low:.0f}..{found.high:.0f})"
    ends = one.behaviour[0].intervals[name]
    return shown if ends is None else f"{shown} ({100 * ends[0]:.0f}..{100 * ends[1]:.0f})"


def _rests_on(found: PolicyComparison) -> Table:
    return Table(
        title="What it rests on",
        columns=(
            *_name_columns(found),
            *("seeds", "questions", "answers each", "left out: lost", "only first", "only second"),
        ),
        rows=tuple(
            (
                *(*_names(one, found), len(one.seeds), one.questions),
                f"{_answers_each(one, 'old')} / {_answers_each(one, 'new')}",
                *_left_out(one),
            )
            for one in found.compared
        ),
        note="Questions of all seeds, answers of first / second side. A question of which the infrastructure lost an answer on "
        "either side is left out, and so is one that the other side was not asked.",
    )


def _answers_each(one: Compared, side: str) -> str:
    counts = {
        len(pair.new if side == "new" else pair.old) for seed in one.seeds for pair in seed.pairs
    }
    return "–".join(map(str, sorted({min(counts), max(counts)})))


def _name_columns(found: PolicyComparison) -> tuple[str, ...]:
    """Of a line's comparison: what does not differ between lines is left out, but for one column."""
    has_pairs, has_conditions = len(found.sides) > 2, len(found.conditions) > 1
    return ("pair",) * (has_pairs or not has_conditions) + ("condition",) * has_conditions


def _names(one: Compared, found: PolicyComparison) -> tuple[str, ...]:
    names = {"pair": f"{one.new} against {one.old}", "condition": one.condition.name}
    return tuple(names[column] for column in _name_columns(found))


def _budget(condition: Condition) -> str:
    return f"up to {condition.max_tool_calls} calls" if condition.has_tools else "without tools"
