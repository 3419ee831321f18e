"""Tables and curves of behaviour, for the console and for pages. What is undefined is a dash."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtool.behaviour.bootstrap import Interval
from jaxtool.behaviour.purposes import PURPOSES
from jaxtool.behaviour.two_runs import SHARES
from jaxtool.report.page import Curve, Series, Table
from jaxtool.study.behaviour_parts import Against, Measured, Offloaded

Cell = str | float | None
Show = Callable[[float], str]
_WHO = ("variant", "sampling")


def tables(
    measured: Sequence[Measured], against: Sequence[Against], offloaded: Sequence[Offloaded]
) -> tuple[Table, ...]:
    """Every table that has rows."""
    made = (
        _lengths(measured),
        _code(measured),
        _ran(measured),
        _corrections(measured),
        _purposes(measured),
        _searches(measured),
        _need(measured),
        _against(against),
        _offloading(offloaded),
        _offloading_curve(offloaded),
    )
    return tuple(table for table in made if table.rows)


def curves(offloaded: Sequence[Offloaded]) -> tuple[Curve, ...]:
    """Share of answers with a call over the solve rate without tools, a line for each policy and way."""
    series = tuple(
        Series(
            name=f"{one.policy}, {one.way}",
            xs=[part.solve_rate for part in one.found.curve],
            ys=[part.call_rate for part in one.found.curve],
        )
        for one in offloaded
    )
    if not series:
        return ()
    return (
        Curve(
            title="Answers with a call over the solve rate without tools",
            x_label="solve rate without tools",
            y_label="answers with a call",
            series=series,
            note="A policy that calls where it must falls from 1 to 0. Points are bins of questions.",
        ),
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _cell(value: float | None, show: Show) -> str:
    return "–" if value is None else show(value)


def _between(value: float | None, interval: Interval | None, show: Show) -> str:
    """`40.0 [31.2..48.8]`."""
    if value is None or interval is None:
        return _cell(value, show)
    return f"{show(value)} [{show(interval[0])}..{show(interval[1])}]"


def _of_parts(
    measured: Sequence[Measured],
    part_of: Callable[[Measured], Mapping[str, Any] | None],
    columns: Mapping[str, tuple[str, Show]],
) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Columns and rows of the policies and ways that have a part.

    Args:
      columns: title of each value's column and how it is shown, by the value's name.
    """
    rows = [
        (one.policy, one.way, *(_cell(part[k], show) for k, (_, show) in columns.items()))
        for one in measured
        if (part := part_of(one)) is not None
    ]
    return (*_WHO, *(title for title, _ in columns.values())), tuple(rows)


def _lengths(measured: Sequence[Measured]) -> Table:
    rows = [
        (
            *(one.policy, one.way, one.answers),
            _cell(one.response_tokens, _whole),
            _cell(one.policy_tokens, _whole),
            *(
                _cell(None if one.calls is None else one.calls[name], _percent)
                for name in ("executed", "first_start", "first_position", "position")
            ),
        )
        for one in measured
    ]
    return Table(
        title="Length and timing",
        columns=(
            *(*_WHO, "answers", "tokens", "of the policy", "calls run %"),
            *("first program starts %", "first call %", "calls %"),
        ),
        rows=tuple(rows),
        note="Timing: 0 is the beginning of the response, 100 its end. Starts are in characters, calls in tokens.",
    )


def _code(measured: Sequence[Measured]) -> Table:
    columns, rows = _of_parts(
        measured,
        lambda one: None if one.code is None else one.code | (one.calls or {}),
        {
            "code_ratio": ("answers with code %", _percent),
            "accuracy_with_code": ("right with %", _percent),
            "accuracy_without_code": ("right without %", _percent),
            "lines_per_answer": ("lines an answer", _number),
            "lines_per_program": ("lines a program", _number),
            "before_answer": ("before the answer %", _percent),
        },
    )
    return Table(
        title="Programs",
        columns=columns,
        rows=rows,
        note="Questions that get code are others than those that get none: the difference is not what code is worth.",
    )


def _ran(measured: Sequence[Measured]) -> Table:
    columns, rows = _of_parts(
        measured,
        lambda one: one.code,
        {
            "ok_programs": ("programs that ran", _whole),
            "pass_ratio": ("ran %", _percent),
            "pass_ratio_right": ("in right answers", _percent),
            "pass_ratio_wrong": ("in wrong answers", _percent),
            "last_pass_ratio_right": ("last one, right", _percent),
            "last_pass_ratio_wrong": ("last one, wrong", _percent),
        },
    )
    return Table(
        title="Programs that ran",
        columns=columns,
        rows=rows,
        note="A program that ran ended without an error; it may still compute the wrong thing.",
    )


def _corrections(measured: Sequence[Measured]) -> Table:
    columns, rows = _of_parts(
        measured,
        lambda one: one.code if one.code and one.code["failed_programs"] else None,
        {
            "failed_programs": ("failed programs", _whole),
            "self_corrected": ("next is a version that runs %", _percent),
            "recovered": ("next runs %", _percent),
            "same_error_again": ("same error again %", _percent),
            "given_up": ("no further program %", _percent),
        },
    )
    return Table(title="After a failed program", columns=columns, rows=rows)


def _purposes(measured: Sequence[Measured]) -> Table:
    having = [one for one in measured if one.purposes]
    rows = [
        (purpose, *(_percent((one.purposes or {}).get(purpose, 0.0)) for one in having))
        for purpose in PURPOSES
        if any(purpose in (one.purposes or {}) for one in having)
    ]
    return Table(
        title="Purposes of programs, %",
        columns=("purpose", *(f"{one.policy}, {one.way}" for one in having)),
        rows=tuple(rows),
        note="By rules on the syntax, not by a model: docs/behaviour.md lists them.",
    )


def _searches(measured: Sequence[Measured]) -> Table:
    columns, rows = _of_parts(
        measured,
        lambda one: one.searches,
        {
            "search_ratio": ("answers that search %", _percent),
            "queries_per_answer": ("queries an answer", _number),
            "words_per_query": ("words a query", _number),
            "repeated": ("repeated %", _percent),
            "empty": ("without passages %", _percent),
            "reference_found": ("reference found %", _percent),
            "accuracy_if_found": ("right if found %", _percent),
            "accuracy_if_not_found": ("right if not %", _percent),
            "grounded": ("answer in passages %", _percent),
        },
    )
    return Table(title="Searches", columns=columns, rows=rows)


def _need(measured: Sequence[Measured]) -> Table:
    columns, rows = _of_parts(
        measured,
        lambda one: one.need,
        {
            "needed": ("needed", _number),
            "over_use": ("beyond those needed", _number),
            "under_use": ("missing", _number),
        },
    )
    return Table(title="Calls an answer against those needed", columns=columns, rows=rows)


def _against(against: Sequence[Against]) -> Table:
    rows = [
        (
            *(one.policy, one.first, one.way, one.found.questions),
            *(
                _between(one.found.shares[name], one.found.intervals[name], _percent)
                for name in SHARES
            ),
        )
        for one in against
    ]
    return Table(
        title="Behaviour shares, %",
        columns=("variant", "against", "sampling", "questions", *SHARES),
        rows=tuple(rows),
        note="ME, LE: same verdict with fewer, more calls. MA, LA: right where the other is wrong, and the other way "
        "round. AE: more accurate with fewer calls, a part of MA (OTC-PO, Table 3). Intervals of 95 % over questions.",
    )


def _offloading(offloaded: Sequence[Offloaded]) -> Table:
    rows = [
        (
            *(one.policy, one.way, one.found.questions, one.found.answers_without),
            _between(one.found.needless, one.found.needless_interval, _percent),
            _between(one.found.offloaded, one.found.offloaded_interval, _percent),
            _between(one.found.auc, one.found.auc_interval, _number),
            _number(one.found.gap),
        )
        for one in offloaded
    ]
    thresholds = {one.found.threshold for one in offloaded}
    at = f"{100 * min(thresholds):.0f}" if thresholds else ""
    return Table(
        title="Offloading",
        columns=(*_WHO, "questions", "probes", "needless %", "offloaded %", "AUC", "gap"),
        rows=tuple(rows),
        note=f"Needless: calls on questions solved without tools {at} % of the time or more. Offloaded: calls whose "
        "answer would be right without. AUC: 1 calls where it must, 0.5 without regard to need. Intervals of 95 % over "
        "questions.",
    )


def _offloading_curve(offloaded: Sequence[Offloaded]) -> Table:
    rows = [
        (
            one.policy,
            one.way,
            f"{100 * part.low:.0f}..{100 * part.high:.0f}",
            part.questions,
            _percent(part.solve_rate),
            _between(part.calls, part.calls_interval, _number),
            _between(part.call_rate, part.call_rate_interval, _percent),
            _percent(part.accuracy),
        )
        for one in offloaded
        for part in one.found.curve
    ]
    return Table(
        title="Calls by the solve rate without tools",
        columns=(
            *(*_WHO, "solved without %", "questions", "mean %", "calls an answer"),
            *("answers with a call %", "right with tools %"),
        ),
        rows=tuple(rows),
        note="Questions by the share of right answers without tools. Intervals of 95 % over the questions of a bin.",
    )
