"""The gin file of a new run, with the reason of each number beside it, and the tables that are printed with it.

The file includes those of gin_configs and says only what model, data and machine decide. Not covered: what the
numbers are (`new_run`).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.model.lora import LoraConfig
from jaxtool.plan.hardware import GPU_FRACTION
from jaxtool.plan.new_run import NewRun, lora_of
from jaxtool.train.run_memory import GIB, MARGIN

_JUDGE_FILES = {
    "ExactMatch": "judges/exact_match.gin",
    "MultipleChoice": "judges/multiple_choice.gin",
    "TokenF1": "judges/token_f1.gin",
    "UnitTests": "judges/unit_tests.gin",
}
_VALIDATION_EVERY, _CPU_VALIDATION_EVERY = 20, 10
_VALIDATION, _CPU_VALIDATION = 100, 16
_Line = tuple[str, Any] | tuple[str, Any, str]


@dataclasses.dataclass(frozen=True)
class _Raw:
    """A value that is written as it is: a macro or a reference."""

    text: str


def _literal(value: Any) -> str:
    """As gin files here write it: "text", 1e-6, True, (1, 2)."""
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    if isinstance(value, tuple):
        inner = ", ".join(map(_literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value).replace("e-0", "e-") if isinstance(value, float) else repr(value)


class _File:
    """Imports, includes and blocks of a gin file, in the order in which a reader wants them."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.includes: list[str] = []
        self.macros: list[str] = []
        self.blocks: list[str] = []

    def block(self, module: str, name: str, *lines: _Line, alias: str = "") -> None:
        """`alias.name` with one binding a line; a line's third part is its comment."""
        package, _, last = module.rpartition(".")
        self.imports.add(f"from {package} import {last}" + f" as {alias}" * bool(alias))
        written = []
        for key, value, *comment in lines:
            text = value.text if isinstance(value, _Raw) else _literal(value)
            written.append(f"{key} = {text}" + "".join(f"  # {reason}" for reason in comment))
        owner = f"{alias or last}.{name}"
        if len(written) == 1:
            self.blocks.append(f"{owner}.{written[0]}\n")
        else:
            self.blocks.append(f"{owner}:\n" + "".join(f"    {line}\n" for line in written))

    def dataclass(self, value: Any, alias: str = "") -> _Raw:
        """Binds the fields of a flat dataclass that differ from their defaults; its reference."""
        cls = type(value)
        lines: list[_Line] = []
        for field in dataclasses.fields(value):
            has_default = field.default is not dataclasses.MISSING
            own = getattr(value, field.name)
            if not has_default or own != field.default:
                lines.append((field.name, own))
        package, _, last = cls.__module__.rpartition(".")
        self.imports.add(f"from {package} import {last}" + f" as {alias}" * bool(alias))
        if lines:
            self.block(cls.__module__, cls.__name__, *lines, alias=alias)
        return _Raw(f"@{alias or last}.{cls.__name__}()")

    def __str__(self) -> str:
        parts = ["from __gin__ import dynamic_registration\n\n"]
        parts += [f"{line}\n" for line in sorted(self.imports)]
        for lines in (self.includes, self.macros):
            parts += ["\n", *(f"{line}\n" for line in lines)] if lines else []
        return "".join(parts) + "".join(f"\n{block}" for block in self.blocks)


def gin_text(run: NewRun, out: str | Path) -> str:
    """The run file; `experiments.train --gin_file out` builds it."""
    file = _File()
    (_sft if run.recipe.is_sft else _rl)(file, run)
    return f"{_header(run, str(out))}{file}"


def command_of(run: NewRun, out: str) -> str:
    """What trains it."""
    prefix = f"{GPU_FRACTION} " if run.hardware.kind == "gpu" else ""
    name = Path(out).stem
    return f"{prefix}python -m experiments.train --gin_file {out} --workdir runs/{name}"


def _header(run: NewRun, out: str) -> str:
    target = (
        "jaxtool.train.sft_loop.SftRunConfig"
        if run.recipe.is_sft
        else "jaxtool.train.rl_config.RlConfig"
    )
    most = run.memory.most / GIB
    lines = [
        f"{run.recipe.about}.",
        f"target: {target}",
        f"command: {command_of(run, out)}",
        f"hardware: {run.hardware.name}, {run.hardware.num_devices} device(s) of {run.hardware.about}.",
        f"By formula a device holds {most:.2f} GiB; {MARGIN:.0%} of its memory is left free.",
        "Written by experiments.new_run: the numbers are yours to change, docs/your_run.md says how.",
    ]
    return "".join(f"# {line}\n" for line in lines)


def _rl(file: _File, run: NewRun) -> None:
    recipe, wish = run.recipe, run.wish
    # 1) What it is made of.
    task = "tasks/search_qa.gin" if recipe.tool == "search" else "tasks/math_code.gin"
    file.includes = [_include(name) for name in (task, "algos/grpo.gin", *recipe.overlays)]
    flags = {"algos/lora.gin": wish.lora, "algos/adam8bit.gin": wish.adam8bit}
    flags["decoders/int8.gin"] = wish.int8
    file.includes += [_include(name) for name, is_wanted in flags.items() if is_wanted]
    file.macros = [f"DATA = {_literal(run.path)}"]
    if recipe.tool == "search":
        file.macros.append(f"TEST_DATA = {_literal(run.test_path)}  # None: a tenth of DATA")
        file.macros.append(f"SEARCH = {_literal(wish.search)}")
    else:
        file.macros.append(f"LAYOUT = {_literal(run.layout)}")
    file.macros.append(f"STEPS = {run.steps}")
    # 2) The run.
    parts: list[_Line] = [
        ("policy", _policy(file, run)),
        ("tokenizer", file.dataclass(run.model.tokenizer)),
        ("renderer", run.renderer, _renderer_reason(run)),
        ("schedule", _Raw("@rl_config.Schedule()")),
        ("optimizer", _Raw("@optimizer.OptimizerConfig()")),
        ("engine", _Raw("@decoder.EngineConfig()")),
        ("pack", _Raw("@batching.PackConfig()")),
    ]
    if recipe.tool != "search":  # whose task binds it
        parts.append(("rollout", _Raw("@collector.RolloutConfig()")))
    if run.unloads_decoder:
        parts.append(("unloads_decoder", True, "the update gets the memory of copy and cache"))
    _judge(file, run, parts)
    blocks, file.blocks = file.blocks, []
    file.block("jaxtool.train.rl_config", "RlConfig", *parts)
    file.blocks += blocks
    _data(file, run)
    lora = lora_of(wish, run.hardware)
    if lora is not None and lora.frozen_dtype != LoraConfig().frozen_dtype:
        half = ("frozen_dtype", lora.frozen_dtype, "half of the bytes, as files have it")
        file.block("jaxtool.model.lora", "LoraConfig", half)
    _schedule(file, run)
    _shapes(file, run)


def _policy(file: _File, run: NewRun) -> _Raw:
    """The source; expected sizes and the like stay out of the file."""
    return file.dataclass(run.model.source, alias="weights")


def _judge(file: _File, run: NewRun, parts: list[_Line]) -> None:
    """Binds the judge where it is not the task's own."""
    judge = run.judge
    usual: Judge = (
        ExactMatch() if run.recipe.tool == "search" else Mathematics(reports_lenient=True)
    )
    if judge is None or judge == usual or type(judge) is type(usual):
        return
    name = type(judge).__name__
    if name in _JUDGE_FILES:
        file.includes.append(_include(_JUDGE_FILES[name]) + "  # it can read the answers")
    else:
        parts.append(("judge", file.dataclass(judge), "it can read the answers"))


def _data(file: _File, run: NewRun) -> None:
    if run.recipe.tool == "search":
        if run.layout != "search_r1":
            file.block("jaxtool.data.problems", "ProblemFile", ("layout", run.layout))
        if run.wish.corpus:
            file.block("jaxtool.tools.search", "Search", ("corpus", run.wish.corpus))
    elif run.test_path is not None:
        file.block("jaxtool.data.problems", "ProblemFile", ("test_path", run.test_path))


def _schedule(file: _File, run: NewRun) -> None:
    is_cpu = run.hardware.kind == "cpu"
    lines: list[_Line] = [
        ("steps", _Raw("%STEPS")),
        ("problems_per_step", run.problems_per_step, f"of {run.rows:,} to train on"),
        ("samples", run.samples),
        ("pool", None, "the whole training split"),
    ]
    if run.validation:
        count = min(run.validation, _CPU_VALIDATION if is_cpu else _VALIDATION)
        every = _CPU_VALIDATION_EVERY if is_cpu else _VALIDATION_EVERY
        lines.append(("eval_every", every))
        lines.append(("eval_problems", count, f"of {run.validation:,} held out of the file"))
    file.block("jaxtool.train.rl_config", "Schedule", *lines)
    _optimizer(file, run)


def _optimizer(file: _File, run: NewRun) -> None:
    reason = "ten times the recipe's, for an adapter" if run.wish.lora else "the recipe's"
    if run.wish.learning_rate:
        reason = "as asked"
    file.block(
        "jaxtool.learn.optimizer",
        "OptimizerConfig",
        ("learning_rate", run.learning_rate, reason),
    )


def _shapes(file: _File, run: NewRun) -> None:
    engine, recipe = run.engine, run.recipe
    assert engine is not None
    limits: list[_Line] = [
        ("max_response_tokens", run.response_tokens, "policy and tools together"),
    ]
    if recipe.tool == "python":
        limits.append(("max_tool_calls", recipe.max_tool_calls))
        limits.append(("at_tool_limit", recipe.at_tool_limit))
    if run.prompts.left_out:
        limits.append(
            (
                "long_prompts",
                "filter",
                f"{run.prompts.left_out} have over {run.prompts.tokens} tokens",
            )
        )
    file.block("jaxtool.rollout.collector", "RolloutConfig", *limits)
    spare = engine.max_tokens - run.prompts.tokens - run.response_tokens
    lines: list[_Line] = [
        (
            "max_tokens",
            run.tokens,
            f"prompts of up to {run.prompts.tokens}, {run.response_tokens} of response, {spare} to round up",
        )
    ]
    if run.hardware.kind == "tpu":
        lines.append(("decode_rows", run.decode_rows, "of each host, by the memory formula"))
    else:
        lines.append(("decode_rows", 0, "as many as fit when the run starts"))
        lines.append(("most_decode_rows", run.decode_rows, "by the memory formula, or all answers"))
    default = type(engine)()
    for name in (
        *("min_view", "window_steps", "prefill_rows", "min_prompt_bucket"),
        *("forced_tokens", "append_rows", "memory_share"),
    ):
        if getattr(engine, name) != getattr(default, name):
            lines.append((name, getattr(engine, name)))
    file.block("jaxtool.decode.config", "EngineConfig", *lines, alias="decoder")
    file.block("jaxtool.rollout.batching", "PackConfig", ("row_tokens", run.tokens))
    file.block(
        "jaxtool.learn.grpo",
        "GrpoConfig",
        ("micro_batch_rows", run.micro_batch_rows, _block_reason(run)),
        ("lm_head_chunk", run.lm_head_chunk),
        ("updates_per_batch", run.updates_per_batch),
        ("aggregation", _Raw(f"@aggregation_choices.{recipe.aggregation}()")),
    )
    file.imports.add("from jaxtool.learn import aggregation_choices")
    if run.cut.tensor > 1:  # without a mesh a run uses all devices
        _mesh(file, "jaxtool.train.rl_config", "RlConfig", run)


def _mesh(file: _File, module: str, owner: str, run: NewRun) -> None:
    """All devices: `tensor` of them share a row's heads and widths, parameters and rows are cut over the rest."""
    parts: list[_Line] = [("mesh", _Raw("@mesh.MeshConfig()"))]
    if run.cut.length_parts > 1:
        parts.append(("axes", _Raw("@axis_rules.AxisRules()")))
    # The owner has a block already, and gin takes a name in as many blocks as it likes, but each field once.
    file.block(module, owner, *parts)
    file.block(
        "jaxtool.parallel.mesh",
        "MeshConfig",
        ("data", 1),
        ("fsdp", -1),
        ("tensor", run.cut.tensor, "devices that share a row's heads and widths"),
    )
    if run.cut.length_parts > 1:
        file.block(
            "jaxtool.parallel.axis_rules",
            "AxisRules",
            ("length", ("context", "tensor"), "the residual stream that is kept is cut too"),
        )


def _sft(file: _File, run: NewRun) -> None:
    wish = run.wish
    file.macros = [
        f"DATA = {_literal(run.path)}",
        f"STEPS = {run.steps}  # two passes over {run.rows:,} rows",
    ]
    if wish.steps:
        file.macros[-1] = f"STEPS = {run.steps}"
    if wish.adam8bit:
        file.includes.append(_include("algos/adam8bit.gin"))
    parts: list[_Line] = [
        ("policy", _policy(file, run)),
        ("tokenizer", file.dataclass(run.model.tokenizer)),
        ("streams", _Raw("(@sft_loop.DemonstrationStream(),)")),
        ("optimizer", _Raw("@optimizer.OptimizerConfig()")),
        ("sft", _Raw("@sft.SftConfig()")),
        ("pack", _Raw("@batching.PackConfig()")),
        ("steps", _Raw("%STEPS")),
        ("log_every", 1),
    ]
    lora = lora_of(wish, run.hardware)
    if lora is not None:
        parts.append(("lora", file.dataclass(lora)))
    blocks, file.blocks = file.blocks, []
    file.block("jaxtool.train.sft_loop", "SftRunConfig", *parts)
    file.blocks += blocks
    file.block(
        "jaxtool.train.sft_loop",
        "DemonstrationStream",
        ("demonstrations", _Raw("@demonstrations.DemonstrationFile()")),
        ("renderer", run.renderer, _renderer_reason(run)),
        ("count", run.problems_per_step, "of a step"),
    )
    lines: list[_Line] = [("path", _Raw("%DATA"))]
    if run.question_after is not None:
        lines.append(("question_after", run.question_after, "the rows hold a whole prompt"))
    file.block("jaxtool.renderers.demonstrations", "DemonstrationFile", *lines)
    _optimizer(file, run)
    file.block(
        "jaxtool.learn.sft",
        "SftConfig",
        ("micro_batch_rows", run.micro_batch_rows, _block_reason(run)),
        ("lm_head_chunk", run.lm_head_chunk),
    )
    longest = f"the longest demonstration has {run.prompts.longest}"
    file.block("jaxtool.rollout.batching", "PackConfig", ("row_tokens", run.tokens, longest))
    if run.cut.tensor > 1:  # without a mesh a run uses all devices
        _mesh(file, "jaxtool.train.sft_loop", "SftRunConfig", run)


def _renderer_reason(run: NewRun) -> str:
    has = run.renderer == run.recipe.renderer and run.renderer != run.recipe.renderer_base
    if run.recipe.renderer == run.recipe.renderer_base:
        return "for base models"
    return "through the model's chat template" if has else "the tokenizer has no chat template"


def _block_reason(run: NewRun) -> str:
    rows, groups = run.micro_batch_rows // run.cut.row_groups, run.cut.row_groups
    return "of a gradient block" if groups == 1 else f"{rows} in each of {groups} groups of devices"


def _include(name: str) -> str:
    return f'include "gin_configs/{name}"'


def facts(run: NewRun) -> list[tuple[str, str]]:
    """What was derived, in words: (name, text)."""
    tokens = f"{run.prompts.longest} tokens"
    if run.prompts.left_out:
        tokens += f"; {run.prompts.left_out} of more than {run.prompts.tokens} are left out"
    lines = [
        ("recipe", run.recipe.about),
        ("model", f"{run.wish.model}: {run.numbers:,} parameters, {run.shape.compute_dtype}"),
        ("renderer", f"{run.renderer}, {_renderer_reason(run)}"),
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
