"""The gin file of a new run, with the reason of each number beside it.

The file includes those of gin_configs and says only what model, data and machine decide. Not covered: what the
numbers are (`new_run`).
"""

from pathlib import Path

from jaxtool.config.places import as_typed, command_words
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.model.lora import LoraConfig
from jaxtool.plan.gin_writer import GinFile, Line, Raw, literal
from jaxtool.plan.hardware import GPU_FRACTION
from jaxtool.plan.new_run import NewRun
from jaxtool.plan.run_fit import lora_of
from jaxtool.train.run_memory import GIB, MARGIN

_JUDGE_FILES = {
    "ExactMatch": "judges/exact_match.gin",
    "MultipleChoice": "judges/multiple_choice.gin",
    "TokenF1": "judges/token_f1.gin",
    "UnitTests": "judges/unit_tests.gin",
}
_VALIDATION_EVERY, _CPU_VALIDATION_EVERY = 20, 10
_VALIDATION, _CPU_VALIDATION = 100, 16


def gin_text(run: NewRun, out: str | Path) -> str:
    """The run file; `experiments.train --gin_file out` builds it."""
    file = GinFile()
    (_sft if run.recipe.is_sft else _rl)(file, run)
    return f"{_header(run, str(out))}{file}"


def command_of(run: NewRun, out: str) -> str:
    """What trains it."""
    prefix = f"{GPU_FRACTION} " if run.hardware.kind == "gpu" else ""
    name = Path(out).stem
    command = " ".join(command_words("train"))
    return f"{prefix}{command} --gin_file {out} --workdir runs/{name}"


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
        as_typed("Written by experiments.new_run")
        + ": the numbers are yours to change, docs/your_run.md says how.",
    ]
    return "".join(f"# {line}\n" for line in lines)


def _rl(file: GinFile, run: NewRun) -> None:
    recipe, wish = run.recipe, run.wish
    # 1) What it is made of.
    task = "tasks/search_qa.gin" if recipe.tool == "search" else "tasks/math_code.gin"
    file.includes = [_include(name) for name in (task, "algos/grpo.gin", *recipe.overlays)]
    flags = {"algos/lora.gin": wish.lora, "algos/adam8bit.gin": wish.adam8bit}
    flags["decoders/int8.gin"] = wish.int8
    file.includes += [_include(name) for name, is_wanted in flags.items() if is_wanted]
    file.macros = [f"DATA = {literal(run.path)}"]
    if recipe.tool == "search":
        file.macros.append(f"TEST_DATA = {literal(run.test_path)}  # None: a tenth of DATA")
        file.macros.append(f"SEARCH = {literal(wish.search)}")
    else:
        file.macros.append(f"LAYOUT = {literal(run.layout)}")
    file.macros.append(f"STEPS = {run.steps}")
    # 2) The run.
    parts: list[Line] = [
        ("policy", _policy(file, run)),
        ("tokenizer", file.dataclass(run.model.tokenizer)),
        ("renderer", run.renderer, renderer_reason(run)),
        ("schedule", Raw("@rl_config.Schedule()")),
        ("optimizer", Raw("@optimizer.OptimizerConfig()")),
        ("engine", Raw("@decoder.EngineConfig()")),
        ("pack", Raw("@batching.PackConfig()")),
    ]
    if recipe.tool != "search":  # whose task binds it
        parts.append(("rollout", Raw("@collector.RolloutConfig()")))
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


def _policy(file: GinFile, run: NewRun) -> Raw:
    """The source; expected sizes and the like stay out of the file."""
    return file.dataclass(run.model.source, alias="weights")


def _judge(file: GinFile, run: NewRun, parts: list[Line]) -> None:
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


def _data(file: GinFile, run: NewRun) -> None:
    if run.recipe.tool == "search":
        if run.layout != "search_r1":
            file.block("jaxtool.data.problems", "ProblemFile", ("layout", run.layout))
        if run.wish.corpus:
            file.block("jaxtool.tools.search", "Search", ("corpus", run.wish.corpus))
    elif run.test_path is not None:
        file.block("jaxtool.data.problems", "ProblemFile", ("test_path", run.test_path))


def _schedule(file: GinFile, run: NewRun) -> None:
    is_cpu = run.hardware.kind == "cpu"
    lines: list[Line] = [
        ("steps", Raw("%STEPS")),
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


def _optimizer(file: GinFile, run: NewRun) -> None:
    reason = "ten times the recipe's, for an adapter" if run.wish.lora else "the recipe's"
    if run.wish.learning_rate:
        reason = "as asked"
    file.block(
        "jaxtool.learn.optimizer",
        "OptimizerConfig",
        ("learning_rate", run.learning_rate, reason),
    )


def _shapes(file: GinFile, run: NewRun) -> None:
    engine, recipe = run.engine, run.recipe
    assert engine is not None
    limits: list[Line] = [
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
    lines: list[Line] = [
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
        ("aggregation", Raw(f"@aggregation_choices.{recipe.aggregation}()")),
    )
    file.imports.add("from jaxtool.learn import aggregation_choices")
    if run.cut.tensor > 1:  # without a mesh a run uses all devices
        _mesh(file, "jaxtool.train.rl_config", "RlConfig", run)


def _mesh(file: GinFile, module: str, owner: str, run: NewRun) -> None:
    """All devices: `tensor` of them share a row's heads and widths, parameters and rows are cut over the rest."""
    parts: list[Line] = [("mesh", Raw("@mesh.MeshConfig()"))]
    if run.cut.length_parts > 1:
        parts.append(("axes", Raw("@axis_rules.AxisRules()")))
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


def _sft(file: GinFile, run: NewRun) -> None:
    wish = run.wish
    file.macros = [
        f"DATA = {literal(run.path)}",
        f"STEPS = {run.steps}  # two passes over {run.rows:,} rows",
    ]
    if wish.steps:
        file.macros[-1] = f"STEPS = {run.steps}"
    if wish.adam8bit:
        file.includes.append(_include("algos/adam8bit.gin"))
    parts: list[Line] = [
        ("policy", _policy(file, run)),
        ("tokenizer", file.dataclass(run.model.tokenizer)),
        ("streams", Raw("(@sft_loop.DemonstrationStream(),)")),
        ("optimizer", Raw("@optimizer.OptimizerConfig()")),
        ("sft", Raw("@sft.SftConfig()")),
        ("pack", Raw("@batching.PackConfig()")),
        ("steps", Raw("%STEPS")),
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
        ("demonstrations", Raw("@demonstrations.DemonstrationFile()")),
        ("renderer", run.renderer, renderer_reason(run)),
        ("count", run.problems_per_step, "of a step"),
    )
    lines: list[Line] = [("path", Raw("%DATA"))]
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


def renderer_reason(run: NewRun) -> str:
    has = run.renderer == run.recipe.renderer and run.renderer != run.recipe.renderer_base
    if run.recipe.renderer == run.recipe.renderer_base:
        return "for base models"
    return "through the model's chat template" if has else "the tokenizer has no chat template"


def _block_reason(run: NewRun) -> str:
    rows, groups = run.micro_batch_rows // run.cut.row_groups, run.cut.row_groups
    return "of a gradient block" if groups == 1 else f"{rows} in each of {groups} groups of devices"


def _include(name: str) -> str:
    return f'include "gin_configs/{name}"'
