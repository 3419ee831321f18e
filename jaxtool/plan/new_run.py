"""A run from a model, a file, a recipe and a machine: what is read, what follows from it, and whether it fits.

The steps are those of `derive`, in its order, so that what cannot be is refused before more is read. No weight is read
and no device is used. The gin file of the result is `run_text`'s.
"""

import dataclasses

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.publish import DecoderNumerics
from jaxtool.judges.base import Judge
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.sources import GgufFile, HfDirectory
from jaxtool.plan.hardware import hardware_named
from jaxtool.plan.run_fit import (
    Memory,
    check_divides,
    check_state,
    decoder_of,
    gradient_block,
    learner_state,
    memory_of,
)
from jaxtool.plan.run_source import demonstration_source, problem_source, prompt_lengths
from jaxtool.plan.wish import Wish
from jaxtool.renderers.renderer import load_renderer
from jaxtool.train import recipes
from jaxtool.train.hub_model import HubModel
from jaxtool.train.named_model import NamedModel, model_named
from jaxtool.train.plain_config import has_chat_template
from jaxtool.train.recipes import Recipe, recipe_named
from jaxtool.train.rollout_worker import check_vocabulary
from jaxtool.train.run_memory import (
    Cut,
    Hardware,
    num_parameters,
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
    data = (
        demonstration_source(wish, renderer, tokenizer)
        if recipe.is_sft
        else problem_source(wish, recipe)
    )
    is_cpu = hardware.kind == "cpu"
    if recipe.is_sft:
        limit, response = prompt_limit(data.lengths), 0
    else:
        lengths = prompt_lengths(data.problems, renderer, tokenizer)
        limit = prompt_limit(lengths, wish.prompt_tokens)
        response = _response_tokens(wish, recipe, model, limit, is_cpu=is_cpu)
    # 4) The machine: how the run is cut, how long its rows are.
    numbers = num_parameters(param_shapes(shape))
    guess = limit.tokens + response
    tensor = tensor_for(shape, numbers, hardware, guess, int8=wish.int8)
    length_parts = 1 if recipe.is_sft else tensor
    cut = Cut(num_devices=hardware.num_devices, tensor=tensor, length_parts=length_parts)
    check_divides(wish, shape, hardware, cut)
    tokens = row_tokens(limit.tokens, response, hardware.kind, length_parts)
    # 5) A step.
    problems_per_step, samples = _step_size(wish, recipe, hardware, data.rows)
    is_small = hardware.num_devices < _SMALL
    updates = 1 if is_small else recipe.updates_per_batch
    steps = wish.steps or _steps(recipe, data.rows, problems_per_step, is_cpu=is_cpu)
    # 6) Memory of both moments.
    state = learner_state(wish, recipe, shape, hardware)
    check_state(wish, state, hardware, numbers)
    answers = problems_per_step * samples
    mean = limit.tokens + response / 2 if response else sum(data.lengths) / len(data.lengths)
    packed = max(1, round(answers * mean / tokens / updates))
    chunk = min(_HEAD_CHUNK, tokens)
    group_rows, block = gradient_block(
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
        decoder = decoder_of(wish, shape, engine, limit, hardware, cut, state, answers)
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
        memory=memory_of(state, decoder, block, hardware, is_cpu=is_cpu),
    )


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
