"""A plan for people and for programs: table in the terminal, one HTML file, JSON."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from jaxtool.plan.chips import GIB
from jaxtool.plan.compiled import ProgramPlan
from jaxtool.plan.facts import compiler_versions
from jaxtool.plan.kernels import KernelPlan
from jaxtool.plan.paged_rows import PagedRows
from jaxtool.plan.step import StepPlan
from jaxtool.report.page import Headline, Report, Section, Table, write_report

COLUMNS = (
    "program",
    "shape",
    "arguments GiB",
    "temporaries GiB",
    "outputs GiB",
    "other resident GiB",
    "HBM GiB",
    "TFLOP",
    "roofline ms",
    "products ms",
    "compiler ms",
    "kernels ms",
    "network waits ms",
    "collectives",
    "runs",
    "s per step",
)
_WIDE = 160  # columns of a terminal that show all of them
_NARROW = ("program", "HBM GiB", "network waits ms", "runs", "s per step")


def as_json(plan: StepPlan, gin_file: str, *overlays: str) -> dict[str, Any]:
    """The record of `--json`; its keys are in the docstring of jaxtool/cli/plan.py."""
    return {
        "topology": plan.tpu.name,
        "devices": plan.tpu.num_devices,
        "gin_file": gin_file,
        "overlays": list(overlays),
        "fits": plan.fits,
        "hbm_used_gib": round(plan.hbm_used / GIB, 2),
        "hbm_limit_gib": plan.tpu.chip.hbm_gib,
        "predicted_step_s": None if plan.step_s is None else round(plan.step_s, 1),
        "decode_tokens_per_s_per_chip": _rate(plan.decode_tokens_per_s_per_chip),
        "step_tokens_per_s_per_chip": _rate(plan.step_tokens_per_s_per_chip),
        "seconds": {name: round(value, 2) for name, value in plan.seconds.items()},
        "resident_gib": {name: round(value / GIB, 3) for name, value in plan.resident.items()},
        "assumptions": dataclasses.asdict(plan.assumptions),
        "programs": [_program_json(plan, program) for program in plan.programs],
        "advice": list(plan.advice),
        "paged_rows": None if plan.paged is None else _rounded(plan.paged),
        "versions": compiler_versions(),
    }


def headline(record: dict[str, Any]) -> str:
    """A record in one line, as the header of its run file quotes it."""
    fits = "fits" if record["fits"] else "does not fit"
    return (
        f"{record['topology']} {fits}, {record['hbm_used_gib']} of {record['hbm_limit_gib']} GiB a "
        f"device; a step of about {record['predicted_step_s']:.0f} s"
    )


def table_row(record: dict[str, Any]) -> str:
    """A record as a row of docs/plans.md."""
    parts = sorted(record["seconds"].items(), key=lambda part: -part[1])
    shares = ", ".join(f"{name} {seconds:.0f}" for name, seconds in parts[:3])
    return (
        f"| `{Path(record['gin_file']).name}` | {record['topology']} ({record['devices']}) | "
        f"{record['hbm_used_gib']} of {record['hbm_limit_gib']} | "
        f"{record['predicted_step_s']:.0f} | {_number(record.get('decode_tokens_per_s_per_chip'))} | "
        f"{_number(record.get('step_tokens_per_s_per_chip'))} | {shares} |"
    )


def write_json(path: Path, plan: StepPlan, gin_file: str, *overlays: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(plan, gin_file, *overlays), indent=1) + "\n")


def print_plan(plan: StepPlan, console: Console | None = None) -> None:
    """Table, verdict and advice; all columns where the terminal is wide, as --json and --html have."""
    console = console or Console()
    table = RichTable(title=f"{plan.tpu.name}: {plan.tpu.num_devices} devices")
    shown = COLUMNS if console.width >= _WIDE else _NARROW
    for column in shown:
        table.add_column(column, justify="left" if column in ("program", "shape") else "right")
    for program in plan.programs:
        cells = dict(zip(COLUMNS, _row(plan, program), strict=True))
        if program.error and shown is _NARROW:
            cells["s per step"] = program.error
        table.add_row(*(_shown(cells[column]) for column in shown))
    console.print(table)
    for line in verdict(plan):
        console.print(line, markup=False)


def verdict(plan: StepPlan) -> list[str]:
    """What the table means, line by line."""
    held = ", ".join(f"{k} {v / GIB:.2f}" for k, v in plan.resident.items() if v)
    lines = [
        f"in memory between programs, GiB per device: {held}",
        f"{'fits' if plan.fits else 'DOES NOT FIT'}: {plan.hbm_used / GIB:.1f} GiB of "
        f"{plan.tpu.chip.hbm_gib:.1f} GiB per device",
    ]
    if plan.step_s is not None:
        parts = sorted(plan.seconds.items(), key=lambda item: -item[1])
        largest = ", ".join(f"{name} {value:.0f}" for name, value in parts[:4])
        a = plan.assumptions
        tokens = f"{a.response_tokens:.0f} response and {a.prompt_tokens:.0f} prompt tokens"
        decoding = (
            f" and {a.tool_calls:g} tool calls per trajectory on average, tools that keep no row "
            "waiting, decode rows refilled at once"
        )
        lines += [
            f"predicted {plan.step}: {plan.step_s:.0f} s ({largest})",
            _rates(plan),
            f"assumed: {tokens}{decoding if plan.decodes else ' per demonstration on average'}, "
            f"matrix products at {a.product_efficiency:.0%} of the peak, kernels that overlap with nothing, "
            "collectives with what the compiler's schedule puts beside them",
        ]
        untimed = {k.name for p in plan.programs for k in p.kernels if k.cycles is None}
        if untimed:
            why = (
                "the chip's clock is not known"
                if plan.tpu.chip.clock_hz is None
                else "the compiler did not show its bundles"
            )
            lines.append(f"not timed, memory traffic alone: {', '.join(sorted(untimed))}: {why}")
    aim = "perhaps quicker" if plan.fits else "to make it fit"
    lines += [f"{aim}: {line}" for line in plan.advice]
    return lines


def _rates(plan: StepPlan) -> str:
    step = f"{_number(plan.step_tokens_per_s_per_chip)} tokens/s a chip over the step"
    if not plan.decodes:
        return step
    return f"{step}, {_number(plan.decode_tokens_per_s_per_chip)} response tokens/s a chip while decoding"


def write_html(path: Path, plan: StepPlan, gin_file: str, config_text: str) -> Path:
    """One self-contained page."""
    step = "none" if plan.step_s is None else f"{plan.step_s:.0f} s"
    rows = tuple(tuple(_row(plan, program)) for program in plan.programs)
    collectives = tuple(
        (program.name, c.kind, c.count, round(c.sent_bytes / GIB, 3))
        for program in plan.programs
        for c in program.collectives
    )
    seconds = tuple((name, round(value, 2)) for name, value in plan.seconds.items())
    held = tuple((name, round(value / GIB, 3)) for name, value in plan.resident.items())
    notes = tuple((line,) for line in verdict(plan))
    report = Report(
        title=f"Plan: {Path(gin_file).stem} on {plan.tpu.name}",
        subtitle="Predicted from programs compiled ahead of time; nothing was run.",
        headlines=(
            Headline(label="fits", value="yes" if plan.fits else "no"),
            Headline(
                label="HBM per device",
                value=f"{plan.hbm_used / GIB:.1f} GiB",
                note=f"of {plan.tpu.chip.hbm_gib} GiB",
            ),
            Headline(label=plan.step, value=step, note="predicted"),
        ),
        sections=(
            Section(
                title="Programs",
                tables=(
                    Table(title="Per device and run", columns=COLUMNS, rows=rows),
                    Table(title=f"Seconds of one {plan.step}", columns=("part", "s"), rows=seconds),
                ),
            ),
            Section(
                title="Memory and traffic",
                tables=(
                    Table(title="Between programs", columns=("what", "GiB"), rows=held),
                    Table(
                        title="Collectives of one run",
                        columns=("program", "kind", "count", "GiB sent per device"),
                        rows=collectives,
                    ),
                    Table(title="Verdict", columns=("",), rows=notes),
                ),
            ),
        ),
        config=config_text,
    )
    return write_report(path, report)


def _program_json(plan: StepPlan, program: ProgramPlan) -> dict[str, Any]:
    return {
        "name": program.name,
        "shape": program.shape,
        "arguments_gib": round(program.arguments / GIB, 3),
        "temporaries_gib": round(program.temporaries / GIB, 3),
        "outputs_gib": round(program.outputs / GIB, 3),
        "other_resident_gib": round(program.other_resident / GIB, 3),
        "hbm_gib": round(program.hbm / GIB, 3),
        "tflop": round(program.flops / 1e12, 4),
        "roofline_ms": round(1e3 * program.roofline_s, 3),
        "products_ms": round(1e3 * program.products_s, 3),
        "compiler_ms": None if program.compiler_s is None else round(1e3 * program.compiler_s, 3),
        "kernels_ms": round(1e3 * program.kernels_s, 3),
        "kernels": {kernel.name: _kernel_json(kernel) for kernel in program.kernels},
        "collectives_ms": round(1e3 * program.collectives_s, 3),
        "waits_ms": round(1e3 * program.exposed_s, 3),
        "collectives": {
            c.kind: {"count": c.count, "gib": round(c.sent_bytes / GIB, 4)}
            for c in program.collectives
        },
        "runs_per_step": plan.runs.get(program.name, 0.0),
        "compile_s": round(program.compile_s, 1),
        "error": program.error,
    }


def _kernel_json(kernel: KernelPlan) -> dict[str, Any]:
    cycles = kernel.cycles
    return {
        "calls": kernel.calls,
        "active_steps": round(kernel.steps.active, 1),
        "skipped_steps": round(kernel.steps.skipped, 1),
        "active_cycles": None if cycles is None else cycles.active,
        "skipped_cycles": None if cycles is None else cycles.skipped,
        "read_gib": round(kernel.steps.read_bytes / GIB, 4),
        "ms": round(1e3 * kernel.seconds, 3),
    }


def _rate(tokens_per_s: float | None) -> float | None:
    return None if tokens_per_s is None else round(tokens_per_s, 1)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _row(plan: StepPlan, program: ProgramPlan) -> list[str | float | None]:
    in_gib = [
        round(size / GIB, 2)
        for size in (
            program.arguments,
            program.temporaries,
            program.outputs,
            program.other_resident,
            program.hbm,
        )
    ]
    if program.error:
        return [program.name, program.shape, *in_gib, *[None] * 6, program.error, None, None]
    kinds = ", ".join(f"{c.kind} x{c.count}" for c in program.collectives)
    return [
        program.name,
        program.shape,
        *in_gib,
        round(program.flops / 1e12, 3),
        round(1e3 * program.roofline_s, 2),
        round(1e3 * program.products_s, 2),
        None if program.compiler_s is None else round(1e3 * program.compiler_s, 2),
        round(1e3 * program.kernels_s, 2),
        round(1e3 * program.exposed_s, 2),
        kinds,
        round(plan.runs.get(program.name, 0.0), 1),
        round(plan.seconds[program.name], 2),
    ]


def _shown(cell: str | float | None) -> str:
    return "-" if cell is None else str(cell)


def _rounded(paged: PagedRows) -> dict[str, float]:
    return {name: round(value, 1) for name, value in dataclasses.asdict(paged).items()}
