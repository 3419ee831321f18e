"""What was derived for a new run, in words, as a table of memory, and as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.plan.new_run import NewRun
from jaxtool.plan.run_text import command_of, renderer_reason
from jaxtool.train.run_memory import GIB


def facts(run: NewRun) -> list[tuple[str, str]]:
    """What was derived, in words: (name, text)."""
    tokens = f"{run.prompts.longest} tokens"
    if run.prompts.left_out:
        tokens += f"; {run.prompts.left_out} of more than {run.prompts.tokens} are left out"
    lines = [
        ("recipe", run.recipe.about),
        ("model", f"{run.wish.model}: {run.numbers:,} parameters, {run.shape.compute_dtype}"),
        ("renderer", f"{run.renderer}, {renderer_reason(run)}"),
    ]
    if run.recipe.is_sft:
        lines += [
            ("data", f"{run.path}: {run.rows:,} demonstrations, the longest of {tokens}"),
            ("rows", f"of {run.tokens} tokens"),
        ]
    else:
        context = run.model.context
        reach = "not said" if context is None else f"{context:,} tokens"
        lines += [
            (
                "data",
                f"{run.path} as {run.layout}: {run.rows:,} to train on, {run.validation:,} to validate",
            ),
            ("judge", run.judging),
            ("prompts", f"up to {tokens}"),
            ("response", f"{run.response_tokens} tokens; the model's context is {reach}"),
            ("rows", f"{run.decode_rows} a host at most, of {run.tokens} tokens"),
        ]
    lines += [
        (
            "step",
            f"{run.problems_per_step} x {run.samples}, {run.updates_per_batch} update(s), blocks of "
            f"{run.micro_batch_rows} rows, learning rate {run.learning_rate:g}, {run.steps} steps",
        ),
        (
            "machine",
            f"{run.hardware.name}: {run.hardware.hosts} host(s) of {run.hardware.devices} device(s), tensor = "
            f"{run.cut.tensor}; {run.hardware.about}",
        ),
    ]
    return lines


def memory_rows(run: NewRun) -> list[tuple[str, float | None, float | None]]:
    """(what, GiB while decoding, GiB while updating) of one device; None: it is not there then."""
    moments = (run.memory.decoding, run.memory.updating)
    names = list(dict.fromkeys([*moments[0], *moments[1]]))
    rows: list[tuple[str, float | None, float | None]] = []
    for name in names:
        first, second = (moment[name] / GIB if name in moment else None for moment in moments)
        rows.append((name, first, second))
    first, second = (sum(moment.values()) / GIB if moment else None for moment in moments)
    return [*rows, ("together", first, second)]


def as_json(run: NewRun, out: str | Path) -> dict[str, Any]:
    """The record of the command; its keys are in the docstring of `experiments.new_run`."""
    return {
        "gin_file": str(out),
        "command": command_of(run, str(out)),
        "recipe": run.recipe.name,
        "hardware": run.hardware.name,
        "facts": dict(facts(run)),
        "layout": run.layout or None,
        "renderer": run.renderer,
        "prompt_tokens": run.prompts.tokens,
        "left_out": run.prompts.left_out,
        "response_tokens": run.response_tokens,
        "row_tokens": run.tokens,
        "decode_rows": run.decode_rows,
        "micro_batch_rows": run.micro_batch_rows,
        "tensor": run.cut.tensor,
        "memory_gib": [list(row) for row in memory_rows(run)],
        "device_gib": run.hardware.device_bytes / GIB,
    }


def table(rows: Sequence[tuple[str, float | None, float | None]]) -> list[str]:
    """The memory table as lines of text."""
    lines = [f"{'GiB of one device':22}{'decoding':>10}{'updating':>10}"]
    for name, first, second in rows:
        cells = ("-" if x is None else f"{x:.3f}" for x in (first, second))
        lines.append(f"{name:22}" + "".join(f"{cell:>10}" for cell in cells))
    return lines
