"""Tables and curves of a study's figures, for the console, for Markdown and for the HTML report."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from jaxtool.report import console_tables
from jaxtool.report.page import Curve, Headline, Report, Section, Series, Table
from jaxtool.study.accuracy_over_calls import accuracy_over_calls, spot_of_means
from jaxtool.study.intervals import t_interval
from jaxtool.study.results import SAMPLINGS

NOT_COUNTED = "These runs did not count lost answers."
LOST_CALL = 0.5  # calls a question below the optimum, from which on a level counts as collapsed


def shown(figure: Mapping[str, Any], scale: float = 1.0, digits: int = 1) -> str:
    """`96.5 ± 0.4` of a `mean_stderr`; a dash where there is no mean."""
    if figure["mean"] is None:
        return "–"
    text = f"{scale * figure['mean']:.{digits}f}"
    error = figure["stderr"]
    return text if error is None else f"{text} ± {scale * error:.{digits}f}"


def interval(figure: Mapping[str, Any]) -> str:
    """`-1.1..+6.8`, the t-interval of 95 % over seeds; a dash where there are fewer than two."""
    if figure["mean"] is None or len(figure["seeds"]) < 2:
        return "–"
    found = t_interval(figure["seeds"])
    return f"{found.low:+.1f}..{found.high:+.1f}"


def rests_on(found: Mapping[str, Any], part: str) -> str:
    """How many answers a table's figures are made of, in a sentence."""
    if not all("rests_on" in variant for variant in found["variants"].values()):
        return NOT_COUNTED
    counts = {name: variant["rests_on"][part] for name, variant in found["variants"].items()}
    asked = sorted({count["answers"] + count["lost"] for count in counts.values()})
    text = f"{' or '.join(f'{number:,}' for number in asked)} answers of each variant"
    lost = [f"{name} {count['lost']}" for name, count in counts.items() if count["lost"]]
    return f"{text}; lost and in no figure: {', '.join(lost) or 'none'}."


def tables(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Every table of the study."""
    return (
        *(_main(found, way) for way in SAMPLINGS),
        *(_by_tool(found, way) for way in SAMPLINGS if len(_tools(found, way)) > 1),
        *(_levels(found, way) for way in SAMPLINGS),
        *(_levels_by_tool(found, way) for way in SAMPLINGS if len(_tools(found, way)) > 1),
        collapse_map(found),
        _paired(found),
        _training(found),
        _matched(found),
        _mental(found),
    )


def markdown(found: Mapping[str, Any]) -> str:
    """The tables as they stand in docs/results.md."""
    parts = []
    for table in tables(found):
        lines = [f"### {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines.append("|" + " --- |" * len(table.columns))
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.rows]
        parts.append("\n".join([*lines, "", table.note, ""] if table.note else [*lines, ""]))
    return "\n".join(parts)


def print_tables(found: Mapping[str, Any], console: Console | None = None) -> None:
    console_tables.print_tables(tables(found), console)


def study_report(found: Mapping[str, Any], title: str) -> Report:
    """Headlines, tables and learning curves with bands over seeds."""
    variants = tuple(found["variants"])
    curves = tuple(
        Curve(
            title=f"{label} of sampled answers to validation questions",
            x_label="step",
            y_label=label,
            series=tuple(
                Series(
                    name=variant,
                    xs=[point["step"] for point in parts[part]],
                    ys=[point["mean"] for point in parts[part]],
                    stderr=[point["stderr"] for point in parts[part]],
                )
                for variant, parts in found["curves"].items()
            ),
            note="Mean over seeds; the band is ± one standard error of it. " + _validations(found),
        )
        for part, label in (("accuracy", "accuracy"), ("calls", "calls"))
    )
    return Report(
        title=title,
        subtitle=f"seeds {found['seeds']}, {found['questions_per_seed']} {found['split']} questions each",
        variants=variants,
        headlines=_headlines(found["summary"]),
        sections=(
            Section(title="Accuracy over calls", curves=pictures(found)),
            Section(title="Curves", curves=curves),
            Section(title="Figures", tables=tables(found)),
        ),
    )


def pictures(found: Mapping[str, Any]) -> tuple[Curve, ...]:
    """Accuracy over calls of the variants, one picture for each way of sampling."""
    made = []
    for way in SAMPLINGS:
        spots = [spot_of_means(part[way], name=name) for name, part in found["variants"].items()]
        known = [spot for spot in spots if spot is not None]
        title = f"Accuracy over calls, {way}"
        if known:
            made.append(accuracy_over_calls(known, title=title, note=rests_on(found, way)))
    return tuple(made)


def _headlines(summary: Mapping[str, Any]) -> tuple[Headline, ...]:
    lines = []
    if summary["otc_calls_cut"] is not None:
        lines.append(
            Headline(
                label="OTC-GRPO without std against the ReTool-GRPO that it starts from, calls",
                value=f"{-100 * summary['otc_calls_cut']:.0f} %",
                note=f"accuracy {-summary['otc_accuracy_loss_points']:+.1f} points, greedy; ReTool-GRPO has fewer steps",
            )
        )
    if summary["rl_gain_over_cold_start_points"] is not None:
        error = summary["rl_gain_stderr"]
        seeds = f"{summary['seeds']} seeds"
        note = "1 seed" if error is None else f"± {error:.1f}, one standard error of {seeds}"
        gain = f"{summary['rl_gain_over_cold_start_points']:+.1f} points"
        lines.append(Headline(label="ReTool-GRPO against its cold start", value=gain, note=note))
    return tuple(lines)


def _matched(found: Mapping[str, Any]) -> Table:
    budgets = next(iter(found["matched_tokens"].values()), [])
    rows = tuple(
        (
            variant,
            *(f"{shown(at['accuracy'], 100)} / {shown(at['calls'], digits=2)}" for at in points),
        )
        for variant, points in found["matched_tokens"].items()
    )
    return Table(
        title="After as many sampled tokens: accuracy % / calls, sampled, validation questions",
        columns=("variant", *(f"{point['tokens'] // 1000} thousand" for point in budgets)),
        rows=rows,
        note="Tokens of the policy in rollouts, those of the variants that a variant starts from included; "
        "the latest validated policy within them. – where a seed's run ended with fewer. "
        f"{_validations(found)}",
    )


def _main(found: Mapping[str, Any], way: str) -> Table:
    rows = []
    for name, variant in found["variants"].items():
        part = variant[way]
        rows.append(
            (
                name,
                shown(part["accuracy"], 100),
                shown(part["tool_calls"], digits=2),
                shown(part["optimal_calls"], digits=2),
                shown(part["tool_productivity"], digits=2),
                shown(part["over_use"], digits=2),
                shown(part["under_use"], digits=2),
                shown(part["tokens"]),
            )
        )
    columns = (
        "variant",
        "accuracy %",
        "calls (TC)",
        "optimum",
        "TP",
        "over-use",
        "under-use",
        "tokens",
    )
    return Table(
        title=f"All levels, {way}", columns=columns, rows=tuple(rows), note=rests_on(found, way)
    )


def _levels(found: Mapping[str, Any], way: str) -> Table:
    levels = list(next(iter(found["variants"].values()))["levels"][way])
    rows = []
    for name, variant in found["variants"].items():
        parts = variant["levels"][way]
        cells = [
            f"{shown(parts[level]['accuracy'], 100)} / {shown(parts[level]['tool_calls'], digits=2)}"
            for level in levels
        ]
        rows.append((name, *cells))
    return Table(
        title=f"By level, {way}: accuracy % / calls",
        columns=("variant", *levels),
        rows=tuple(rows),
        note=rests_on(found, way),
    )


def _tools(found: Mapping[str, Any], way: str) -> list[str]:
    """Tools of which any variant has figures; none in files of before."""
    variants = found["variants"].values()
    return sorted(
        {tool for variant in variants for tool in variant.get("by_tool", {}).get(way, ())}
    )


def _by_tool(found: Mapping[str, Any], way: str) -> Table:
    """A line for each variant and tool; a study of one tool does not show it."""
    rows = [
        (
            name,
            tool,
            shown(part["with_call"], 100),
            shown(part["accuracy_with_call"], 100),
            shown(part["tool_calls"], digits=2),
            shown(part["tool_productivity"], digits=2),
        )
        for name, variant in found["variants"].items()
        for tool, part in variant.get("by_tool", {}).get(way, {}).items()
    ]
    return Table(
        title=f"By tool, {way}",
        columns=(
            *("variant", "tool", "answers with call %"),
            *("their accuracy %", "calls (TC)", "TP"),
        ),
        rows=tuple(rows),
        note=f"TC and TP of the tool's calls, over all answers. {rests_on(found, way)}",
    )


def _levels_by_tool(found: Mapping[str, Any], way: str) -> Table:
    levels = list(next(iter(found["variants"].values()))["levels"][way])
    rows = []
    for name, variant in found["variants"].items():
        parts = [variant["levels"][way][level].get("by_tool", {}) for level in levels]
        for tool in _tools(found, way):
            cells = [
                shown(part[tool]["tool_calls"], digits=2) if tool in part else "–" for part in parts
            ]
            rows.append((name, tool, *cells))
    return Table(
        title=f"By level and tool, {way}: calls",
        columns=("variant", "tool", *levels),
        rows=tuple(rows),
        note=rests_on(found, way),
    )


def collapse_map(found: Mapping[str, Any]) -> Table:
    """Which variants lost a call that questions need, in which seeds."""
    variants = found["variants"]
    optima = [best for variant in variants.values() for best in variant["optimal_calls"]]
    levels = sorted({level for best in optima for level, calls in best.items() if calls})
    rows = []
    for name, variant in variants.items():
        lost: set[int] = set()
        cells = []
        for level in levels:
            calls = variant["levels"]["greedy"][level]["tool_calls"]["seeds"]
            wanted = [best.get(level, 0) for best in variant["optimal_calls"]]
            short = [i for i, made in enumerate(calls) if made <= wanted[i] - LOST_CALL]
            lost.update(short)
            cells.append(", ".join(f"{x:.2f}{'!' * (i in short)}" for i, x in enumerate(calls)))
        seeds = len(variant["optimal_calls"])
        rows.append((name, *cells, f"in {len(lost)} of {seeds} seeds" if lost else "kept"))
    return Table(
        title="Collapse map: greedy calls of each seed where questions need the tool",
        columns=("variant", *levels, "a call is lost"),
        rows=tuple(rows),
        note=f"! at least {LOST_CALL:g} calls a question below the optimum, whatever the answers are worth. "
        f"{rests_on(found, 'greedy')}",
    )


def _paired(found: Mapping[str, Any]) -> Table:
    rows = []
    for pair, both in found["paired"].items():
        for way in SAMPLINGS:
            part = both[way]
            rows.append(
                (
                    pair,
                    way,
                    _questions(part),
                    shown(part["accuracy_points"]),
                    interval(part["accuracy_points"]),
                    shown(part["calls_cut"], 100, 0),
                    shown(part["productivity_gain"], 100, 0),
                )
            )
    return Table(
        title="Differences, seed by seed",
        columns=(
            *("pair", "answers", "questions", "accuracy, points", "95 % interval"),
            *("calls cut %", "TP gain %"),
        ),
        rows=tuple(rows),
        note="Questions: those of all seeds of which neither side lost its answer. ± one standard error; the "
        "interval is that of the t distribution, not corrected for the number of rows.",
    )


def _questions(part: Mapping[str, Any]) -> str:
    """`1,200`, or `1,198 of 1,200` where some are left out; a dash where nobody counted."""
    if "questions" not in part:
        return "–"
    used, left_out = (sum(part[name]["seeds"]) for name in ("questions", "questions_left_out"))
    return f"{used:,} of {used + left_out:,}" if left_out else f"{used:,}"


def _training(found: Mapping[str, Any]) -> Table:
    rows = []
    for name, variant in found["variants"].items():
        training = variant["training"]
        if "tokens" not in training:
            rows.append(
                (name, training["steps"], "–", shown(training["seconds"], digits=0), "–", "–")
            )
            continue
        has_target = "steps_to_target" in training
        rows.append(
            (
                name,
                training["steps"],
                shown(training["tokens"], 1e-3, 0),
                shown(training["seconds"], digits=0),
                _each(training["steps_to_target"]) if has_target else "–",
                shown(training["tokens_to_target"], 1e-3, 0) if has_target else "–",
            )
        )
    return Table(
        title="Training",
        columns=(
            "variant",
            "steps",
            "thousand tokens",
            "seconds",
            "steps to target",
            "thousand tokens to it",
        ),
        rows=tuple(rows),
        note="Tokens of the policy in rollouts. The target is text-only RL's best sampled validation "
        "accuracy of the same seed; 0: the policy that the variant starts from has it; one figure a seed. "
        f"{_validations(found)}",
    )


def _validations(found: Mapping[str, Any]) -> str:
    """What the validations during training rest on, in a sentence."""
    each = {
        name: variant["training"]["validations"]
        for name, variant in found["variants"].items()
        if "validations" in variant["training"]
    }
    if not each and any("tokens" in variant["training"] for variant in found["variants"].values()):
        return NOT_COUNTED
    lost = [
        f"{name} {counts['lost']} of {counts['lost'] + counts['answers']}"
        + (f" (validations without figures: {counts['refused']})" if counts["refused"] else "")
        for name, counts in each.items()
        if counts["lost"]
    ]
    answers = sum(counts["answers"] for counts in each.values())
    return (
        f"Validations: {answers:,} answers of all runs; lost and in no figure: "
        f"{', '.join(lost) or 'none'}."
    )


def _each(figure: Mapping[str, Any]) -> str:
    return ", ".join("never" if value is None else f"{value:.0f}" for value in figure["seeds"])


def _mental(found: Mapping[str, Any]) -> Table:
    levels = list(next(iter(found["variants"].values()))["mental_accuracy"])
    rows: list[tuple[str, ...]] = []
    for name, variant in found["variants"].items():
        rows.append((name, *(shown(variant["mental_accuracy"][level], 100) for level in levels)))
    return Table(
        title="Accuracy of answers without a call, greedy, validation questions",
        columns=("variant", *levels),
        rows=tuple(rows),
        note=rests_on(found, "mental"),
    )
