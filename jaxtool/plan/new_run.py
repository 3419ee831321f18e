"""A run from a model, a file, a recipe and a machine: what is read, what follows from it, and whether it fits.

The steps are those of `derive`, in its order, so that what cannot be is refused before more is read. No weight is read
and no device is used. The gin file of the result is `run_text`'s.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.types import Problem
from jaxtool.data.layout_guess import guess_layout
from jaxtool.data.layouts import PRESETS
from jaxtool.data.named_sets import training_data
from jaxtool.data.problems import ProblemFile
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.publish import DecoderNumerics
from jaxtool.judges.base import Judge
from jaxtool.judges.case_files import judge_named
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.references import check_references
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.learn.memory import LearnerMemory, learner_memory
from jaxtool.learn.optimizer import AdamW8bit, OptimizerConfig
from jaxtool.learn.sft import SftConfig, SftSetup
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraConfig
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.sources import GgufFile, HfDirectory
from jaxtool.parallel.axis_rules import single_device
from jaxtool.plan.hardware import hardware_named
from jaxtool.renderers.conversations import read_conversations
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import Renderer, load_renderer
from jaxtool.train import recipes
from jaxtool.train.hub_model import HubModel
from jaxtool.train.named_model import NamedModel, model_named
from jaxtool.train.plain_config import has_chat_template, judge_for
from jaxtool.train.recipes import Recipe, recipe_named
from jaxtool.train.rollout_worker import check_vocabulary
from jaxtool.train.run_memory import (
    BLOCK_SHARE,
    GIB,
    Cut,
    DecoderBytes,
    Hardware,
    decoder_bytes,
    gradient_block_bytes,
    num_parameters,
    rows_of_a_group,
    tensor_for,
)
from jaxtool.train.run_shapes import PromptLimit, decoder_config, prompt_limit, row_tokens

_SMALL = 8  # devices; with fewer a step is smaller than the paper's
_SMALL_PROBLEMS, _SMALL_SAMPLES = 32, 8
_HEAD_CHUNK = 512
_BORDER_TOKENS = 32  # a prompt may have more than its parts have
_QUESTION_MARK = "*user question:*"  # of ReTool-SFT, see DemonstrationFile
_PASSES = 2  # of a cold start over its file
_USUAL_STEPS, _CPU_STEPS = 200, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What a person says; None: it is found."""

    model: str  # a name of weights
    data: str  # NAME, NAME=FILE, or FILE
    recipe: str
    hardware: str
    layout: str | None = None
    judge: str | None = None
    response_tokens: int | None = None
    prompt_tokens: int | None = None  # longer ones are left out
    steps: int | None = None
    problems_per_step: int | None = None
    samples: int | None = None
    learning_rate: float | None = None
    lora: bool = False
    int8: bool = False  # the decoder's weights and cache
    adam8bit: bool = False
    search: tuple[str, ...] = ()  # addresses of search servers
    corpus: str = ""  # or: of a server of the run's own


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device in the two moments of a step, by what takes them."""

    decoding: dict[str, int]  # {} of a cold start
    updating: dict[str, int]

    @property
    def most(self) -> int:
        return max(sum(self.decoding.values()), sum(self.updating.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewRun:
    """Everything that the gin file says."""

    wish: Wish
    recipe: Recipe
    hardware: Hardware
    model: NamedModel
    shape: ModelConfig
    numbers: int  # parameters
    renderer: str
    layout: str  # "" of a cold start
    path: str
    test_path: str | None
    judge: Judge | None  # None of a cold start
    judging: str
    question_after: str | None  # of a cold start whose rows hold whole prompts
    rows: int  # to train on: problems, or demonstrations
    validation: int  # problems
    prompts: PromptLimit
    response_tokens: int
    tokens: int  # of a cache row and of a packed row
    cut: Cut
    engine: EngineConfig | None  # None of a cold start
    decode_rows: int  # a host; 0 of a cold start
    micro_batch_rows: int
    lm_head_chunk: int
    problems_per_step: int
    samples: int
    updates_per_batch: int
    steps: int
    learning_rate: float
    unloads_decoder: bool
    memory: Memory


def derive(wish: Wish) -> NewRun:
    """The run of a wish.

    Raises:
      FileNotFoundError, OSError: model, tokenizer or data are not there.
      ValueError: an unknown recipe, machine or layout, answers that the judge cannot read, rows that are no
        demonstrations, or a run that does not fit; one line with numbers and remedy.
    """
    # 1) Names.
    recipe, hardware = recipe_named(wish.recipe), hardware_named(wish.hardware)
    _check_flags(wish, recipe)
    # 2) The model and its tokenizer.
    model = model_named(wish.model, "float32" if hardware.kind == "cpu" else "bfloat16")
    if isinstance(model.source, GgufFile | HfDirectory | HubModel):  # a run's policy has its own
        source = dataclasses.replace(model.source, remat="block")  # the formula counts on it
        model = dataclasses.replace(model, source=source)
    tokenizer, shape = model.tokenizer.load(), model.source.model_config()
    check_vocabulary(tokenizer, shape)
    has_template = has_chat_template(tokenizer)
    name = recipe.renderer if has_template else recipe.renderer_base
    renderer = load_renderer(name)
    # 3) The data: how many, how long, who judges.
    data = _demonstrations(wish, renderer, tokenizer) if recipe.is_sft else _problems(wish, recipe)
    is_cpu = hardware.kind == "cpu"
    if recipe.is_sft:
        limit, response = prompt_limit(data.lengths), 0
    else:
        limit = _prompt_limit(wish, data.problems, renderer, tokenizer)
        response = _response_tokens(wish, recipe, model, limit, is_cpu=is_cpu)
    # 4) The machine: how the run is cut, how long its rows are.
    numbers = num_parameters(param_shapes(shape))
    guess = limit.tokens + response
    tensor = tensor_for(shape, numbers, hardware, guess, int8=wish.int8)
    length_parts = 1 if recipe.is_sft else tensor
    cut = Cut(num_devices=hardware.num_devices, tensor=tensor, length_parts=length_parts)
    tokens = row_tokens(limit.tokens, response, hardware.kind, length_parts)
    # 5) A step.
    problems_per_step, samples = _step_size(wish, recipe, hardware, len(data.problems) or data.rows)
    is_small = hardware.num_devices < _SMALL
    updates = 1 if is_small else recipe.updates_per_batch
    steps = wish.steps or _steps(recipe, data.rows, problems_per_step, is_cpu=is_cpu)
    # 6) Memory of both moments.
    state = _learner_state(wish, recipe, shape, hardware)
    _check_state(wish, state, hardware, numbers)
    answers = problems_per_step * samples
    mean = limit.tokens + response / 2 if response else sum(data.lengths) / len(data.lengths)
    packed = max(1, round(answers * mean / tokens / updates))
    chunk = min(_HEAD_CHUNK, tokens)
    group_rows, block = _gradient_block(
        wish, shape, hardware, cut, tokens, chunk, state, most=-(-packed // cut.row_groups)
    )
    engine, decoder = None, None
    if not recipe.is_sft:
        engine = decoder_config(
            prompt_tokens=limit.tokens,
            tokens=tokens,
            kind=hardware.kind,
            row_parts=hardware.devices // tensor,
            memory_share=0.5 if is_cpu else 0.9,
        )
        engine = dataclasses.replace(engine, numerics=_numerics(wish, hardware))
        decoder = _decoder(wish, shape, engine, limit, hardware, cut, state, answers)
    return NewRun(
        wish=wish,
        recipe=recipe,
        hardware=hardware,
        model=model,
        shape=shape,
        numbers=numbers,
        renderer=name,
        layout=data.layout,
        path=data.path,
        test_path=data.test_path,
        judge=data.judge,
        judging=data.judging,
        question_after=data.question_after,
        rows=data.rows,
        validation=data.validation,
        prompts=limit,
        response_tokens=response,
        tokens=tokens,
        cut=cut,
        engine=engine,
        decode_rows=0 if decoder is None else decoder.rows,
        micro_batch_rows=group_rows * cut.row_groups,
        lm_head_chunk=chunk,
        problems_per_step=problems_per_step,
        samples=samples,
        updates_per_batch=updates,
        steps=steps,
        learning_rate=wish.learning_rate or _rate(recipe, has_adapter=wish.lora),
        unloads_decoder=not is_cpu and not recipe.is_sft,
        memory=_memory(state, decoder, block, hardware, is_cpu=is_cpu),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Data:
    """What a run learns from."""

    path: str
    layout: str = ""
    test_path: str | None = None
    problems: Sequence[Problem] = ()  # training and validation
    rows: int  # to train on
    validation: int = 0
    judge: Judge | None = None
    judging: str = ""
    lengths: Sequence[int] = ()  # tokens of demonstrations
    question_after: str | None = None


def _check_flags(wish: Wish, recipe: Recipe) -> None:
    if recipe.tool == "search" and bool(wish.search) == bool(wish.corpus):
        raise ValueError(
            f"--recipe {recipe.name} needs a search server: give --search HOST:PORT of one that runs, or --corpus FILE "
            "for one that the run starts (docs/search.md)"
        )
    if recipe.tool != "search" and (wish.search or wish.corpus):
        raise ValueError(f"--search, --corpus: the recipe {recipe.name} does not search")
    if recipe.is_sft:
        wrong = {
            "--int8": wish.int8,
            "--layout": wish.layout,
            "--judge": wish.judge,
            "--response_tokens": wish.response_tokens,
            "--samples": wish.samples,
        }
        for flag, value in wrong.items():
            if value:
                raise ValueError(
                    f"{flag}: a cold start learns from written answers and decodes none"
                )


def _problems(wish: Wish, recipe: Recipe) -> _Data:
    """The problem file, read, and the judge that can read its answers."""
    task = problem_file(wish.data, wish.layout)
    training = task.problems("train", None, 0)
    validation = task.problems("validation", None, 0)
    both = [*training, *validation]
    usual: Judge = ExactMatch() if recipe.tool == "search" else Mathematics(reports_lenient=True)
    if wish.judge is not None:
        judge = judge_named(wish.judge)
        said = check_references(judge, both)
    else:
        judge = judge_for(usual, both)
        said = check_references(judge, both)
    layout = task.layout
    assert isinstance(layout, str)
    return _Data(
        path=task.path,
        layout=layout,
        test_path=task.test_path,
        problems=both,
        rows=len(training),
        validation=len(validation),
        judge=judge,
        judging=said,
    )


def problem_file(text: str, layout: str | None) -> ProblemFile:
    """The problems of --data: `NAME[=FILE]` as everywhere, or a FILE with --layout or one that is recognised.

    Raises:
      ValueError: a layout is named twice, or none is recognised.
    """
    name, has_file, _ = text.partition("=")
    if name in PRESETS and not Path(text).is_file():
        if layout is not None:
            raise ValueError(f"--data {text} names the layout already: leave --layout {layout} out")
        return training_data(text)
    if has_file and not Path(text).is_file():
        return training_data(text)  # says that there is no such layout
    return ProblemFile(path=text, layout=guess_layout(text) if layout is None else layout)


def _demonstrations(wish: Wish, renderer: Renderer, tokenizer: Tokenizer) -> _Data:
    """The file of demonstrations with the tokens of each."""
    try:
        asked = [row.question for row in read_conversations(wish.data)]
        mark = _QUESTION_MARK if asked and all(_QUESTION_MARK in one for one in asked) else None
        file = DemonstrationFile(path=wish.data, question_after=mark)
        lengths = file.lengths(renderer=renderer, tokenizer=tokenizer)
    except ValueError as error:
        raise ValueError(f"--recipe sft learns from demonstrations: {error}") from None
    return _Data(path=wish.data, rows=len(lengths), lengths=lengths, question_after=mark)


def _prompt_limit(
    wish: Wish, problems: Sequence[Problem], renderer: Renderer, tokenizer: Tokenizer
) -> PromptLimit:
    return prompt_limit(prompt_lengths(problems, renderer, tokenizer), wish.prompt_tokens)


def prompt_lengths(
    problems: Sequence[Problem], renderer: Renderer, tokenizer: Tokenizer
) -> list[int]:
    """Tokens of every prompt: exact where one may be the longest, elsewhere the question's and the template's.

    A chat template takes a millisecond, and files have 100,000 questions.
    """
    sizes = [len(tokenizer.encode_plain(problem.question)) for problem in problems]
    first = len(renderer.prompt_ids(tokenizer, problems[0])) - sizes[0]
    lengths = [first + size for size in sizes]
    border = max(lengths) - _BORDER_TOKENS
    for i, problem in enumerate(problems):
        if lengths[i] >= border:
            lengths[i] = len(renderer.prompt_ids(tokenizer, problem))
    return lengths


def _response_tokens(
    wish: Wish, recipe: Recipe, model: NamedModel, limit: PromptLimit, *, is_cpu: bool
) -> int:
    usual = min(recipe.response_tokens, recipes.CPU_RESPONSE_TOKENS) if is_cpu else None
    wanted = wish.response_tokens or usual or recipe.response_tokens
    if model.context is None:
        return wanted
    room = model.context - limit.tokens
    if room < 1 or (wish.response_tokens and wanted > room):
        raise ValueError(
            f"{wish.model}: positions reach to {model.context} tokens, and prompts have up to {limit.tokens}: "
            f"--response_tokens {wanted} is more than the {max(0, room)} that are left; give fewer, or leave longer "
            "prompts out by --prompt_tokens"
        )
    return min(wanted, room)


def _step_size(wish: Wish, recipe: Recipe, hardware: Hardware, available: int) -> tuple[int, int]:
    """Problems of a step and samples of each."""
    problems, samples = recipe.problems_per_step, recipe.samples
    if hardware.kind == "cpu":
        problems = min(problems, recipes.CPU_PROBLEMS)
        samples = min(samples, recipes.CPU_SAMPLES)
    elif hardware.num_devices < _SMALL:
        problems, samples = min(problems, _SMALL_PROBLEMS), min(samples, _SMALL_SAMPLES)
    return wish.problems_per_step or min(problems, available), wish.samples or samples


def _steps(recipe: Recipe, rows: int, per_step: int, *, is_cpu: bool) -> int:
    if recipe.is_sft:
        return max(1, -(-_PASSES * rows // per_step))
    return _CPU_STEPS if is_cpu else _USUAL_STEPS


def _rate(recipe: Recipe, *, has_adapter: bool) -> float:
    rate = recipe.learning_rate * (recipes.LORA_RATE if has_adapter else 1)
    return float(f"{rate:.3g}")  # 1e-5, as people write it


def _numerics(wish: Wish, hardware: Hardware) -> DecoderNumerics:
    if not wish.int8:
        return DecoderNumerics()
    return DecoderNumerics(dtype="bfloat16", weights="int8", cache="int8")


def lora_of(wish: Wish, hardware: Hardware) -> LoraConfig | None:
    """The adapter; accelerators keep the frozen policy in bfloat16, as files have it."""
    if not wish.lora:
        return None
    return LoraConfig(frozen_dtype="float32" if hardware.kind == "cpu" else "bfloat16")


def _learner_state(
    wish: Wish, recipe: Recipe, shape: ModelConfig, hardware: Hardware
) -> LearnerMemory:
    """Of one device: everything is sharded over all of them, but for norms."""
    sharding, num_devices = single_device(), hardware.num_devices
    optimizer = OptimizerConfig(rule=AdamW8bit()) if wish.adam8bit else OptimizerConfig()
    setup = SftSetup(model=shape, sft=SftConfig(), optimizer=optimizer, sharding=sharding)
    whole = learner_memory(
        lambda trained, view: SftLearner(setup=setup, view=view).start(trained),
        shape,
        lora_of(wish, hardware),
        sharding,
        keeps_first=recipe.needs_reference,
    )
    return dataclasses.replace(
        whole,
        parameters=whole.parameters // num_devices,
        reference=whole.reference // num_devices,
        optimizer_state=whole.optimizer_state // num_devices,
        gradients=whole.gradients // num_devices,
    )


def _check_state(wish: Wish, state: LearnerMemory, hardware: Hardware, numbers: int) -> None:
    if state.total <= hardware.room:
        return
    flags = ["--lora" * (not wish.lora), "--adam8bit" * (not wish.adam8bit and not wish.lora)]
    remedy = ", ".join(filter(None, [*flags, "more devices", "a smaller model"]))
    raise ValueError(
        f"{wish.model} on {hardware.name} does not fit: the learner's state of {numbers:,} parameters takes "
        f"{state.total / GIB:.1f} GiB a device, and {hardware.room / GIB:.1f} GiB may be planned "
        f"({hardware.about}, a tenth left free): try {remedy}"
    )


def _gradient_block(
    wish: Wish,
    shape: ModelConfig,
    hardware: Hardware,
    cut: Cut,
    tokens: int,
    chunk: int,
    state: LearnerMemory,
    most: int,
) -> tuple[int, int]:
    """Rows of a group, and the bytes of such a block."""
    has_kernel = hardware.kind != "cpu"
    room = hardware.room - state.total
    rule: dict[str, Any] = {
        "tokens": tokens,
        "cut": cut,
        "lm_head_chunk": chunk,
        "has_kernel": has_kernel,
    }
    share = min(room, int(BLOCK_SHARE * hardware.device_bytes))
    rows = rows_of_a_group(shape, room=share, most=most, **rule)
    # One row may take more than a block's usual share.
    rows = rows or rows_of_a_group(shape, room=room, most=1, **rule)
    size = gradient_block_bytes(shape, rows=max(1, rows), **rule)
    if not rows:
        what = "shorter demonstrations" if wish.recipe == "sft" else "--response_tokens N"
        raise ValueError(
            f"{wish.model} on {hardware.name} does not fit: a gradient block of one row of {tokens} tokens takes "
            f"{size / GIB:.1f} GiB a device, and the learner's state of {state.total / GIB:.1f} GiB leaves "
            f"{room / GIB:.1f} of {hardware.room / GIB:.1f} GiB: try {what} with fewer than {tokens} tokens a row"
            f"{'' if wish.lora else ', --lora'}, or more devices"
        )
    return rows, size


def _decoder(
    wish: Wish,
    shape: ModelConfig,
    engine: EngineConfig,
    limit: PromptLimit,
    hardware: Hardware,
    cut: Cut,
    state: LearnerMemory,
    answers: int,
) -> DecoderBytes:
    """The rows that fit beside what the learner keeps while it waits: all but gradients."""
    kept = state.total - state.gradients
    found = decoder_bytes(
        engine.numerics.model(shape),
        engine,
        longest_prompt=limit.tokens,
        devices=hardware.devices,
        tensor=cut.tensor,
        free=hardware.device_bytes - kept,
        most_rows=-(-answers // hardware.hosts),
    )
    if found.rows:
        return found
    need = (found.weights + found.fixed + found.per_row) / hardware.devices
    flags = "" if wish.int8 else "--int8, "
    raise ValueError(
        f"{wish.model} on {hardware.name} does not fit: the decoder needs {need / GIB:.1f} GiB a device for one row of "
        f"{engine.max_tokens} tokens, with {found.weights / hardware.devices / GIB:.1f} GiB of weights, and "
        f"{(hardware.device_bytes - kept) / GIB:.1f} GiB are free beside the learner's state: try {flags}a smaller "
        "--response_tokens, or more devices"
    )


def _memory(
    state: LearnerMemory,
    decoder: DecoderBytes | None,
    block: int,
    hardware: Hardware,
    *,
    is_cpu: bool,
) -> Memory:
    kept = {
        "parameters": state.parameters,
        "first policy (KL)": state.reference,
        "optimizer state": state.optimizer_state,
    }
    own: dict[str, int] = {}
    if decoder is not None:
        own = {
            "decoder's copy": decoder.weights // hardware.devices,
            "cache and logits": decoder.per_row * decoder.rows // hardware.devices,
            "prefill": decoder.fixed // hardware.devices,
        }
    updating = kept | {"gradients": state.gradients, "gradient block": block}
    if is_cpu:
        updating |= own  # nothing is unloaded there
    decoding = _present(kept | own) if own else {}
    return Memory(decoding=decoding, updating=_present(updating))


def _present(parts: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
