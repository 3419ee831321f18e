"""Runs out of a model, a file, a recipe and a machine: near the hand-made ones, built by the loader, or refused."""

import dataclasses
import json
import math

import pytest
from helpers.tiny_hf import (
    CONTEXT,
    MODEL,
    write_demonstrations,
    write_gsm8k,
    write_model,
    write_shape,
)

from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.model.lora import LoraConfig
from jaxtool.plan import run_facts, run_source, run_text
from jaxtool.plan.new_run import derive
from jaxtool.plan.wish import Wish
from jaxtool.renderers.renderer import load_renderer
from jaxtool.train.recipes import RECIPES
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.run_files import load_run
from jaxtool.train.sft_loop import SftRunConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, one without a chat template, GSM8K's rows and demonstrations."""
    path = tmp_path_factory.mktemp("new_run")
    write_model(path / "model")
    write_model(path / "base", has_template=False)
    write_gsm8k(path / "gsm8k.jsonl")
    write_demonstrations(path / "sft.jsonl")
    return path


def wish(folder, recipe="retool_grpo", hardware="cpu", **more):
    data = folder / ("sft.jsonl" if recipe == "sft" else "gsm8k.jsonl")
    fields = {"model": str(folder / "model"), "data": str(data)}
    if recipe == "search_r1":
        fields |= {"search": ("127.0.0.1:8000",), "layout": "gsm8k"}
    return Wish(recipe=recipe, hardware=hardware, **(fields | more))


def built(run, tmp_path):
    """The run as `experiments.train` reads it."""
    file = tmp_path / "my_run.gin"
    file.write_text(run_text.gin_text(run, file))
    return load_run([file])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("hardware", ["cpu", "a100-80g", "h100-8", "v5e-16", "v6e-64"])
def test_every_recipe_on_every_machine_is_a_file_that_the_strict_loader_builds(
    recipe, hardware, folder, tmp_path
):
    run = derive(wish(folder, recipe, hardware))
    config = built(run, tmp_path)
    is_sft = recipe == "sft"
    assert isinstance(config, SftRunConfig if is_sft else RlConfig)
    own = config.sft if is_sft else config.grpo
    assert own.micro_batch_rows == run.micro_batch_rows
    assert config.pack.row_tokens == run.tokens
    assert config.policy.remat == "block"
    assert config.policy.compute_dtype == ("float32" if hardware == "cpu" else "bfloat16")
    assert config.optimizer.learning_rate == 1e-6
    if not is_sft:
        assert config.engine.max_tokens == run.tokens
        assert config.rollout.max_response_tokens == run.response_tokens
        assert config.unloads_decoder is (hardware != "cpu")
        rows = config.engine.decode_rows or config.engine.most_decode_rows
        assert rows == run.decode_rows
        assert config.reward == built_reward(recipe)
    assert len(run_text.gin_text(run, "x.gin").splitlines()) < 85


def built_reward(recipe):
    overlay = ["gin_configs/algos/otc_grpo.gin"] if recipe == "otc_grpo" else []
    return load_run(["gin_configs/runs/quickstart_grpo.gin", *overlay]).reward


# What people made for these models, by the compiler's plans.
BY_HAND = {
    "stateful_qwen3_4b_v6e_64": ("retool_grpo", "v6e-64", 40_960),
    "torl_1_5b_v5e_8": ("torl", "v5e-8", 4096),
    "otc_grpo_7b_v6e_16": ("otc_grpo", "v6e-16", 4096),
    "otc_grpo_7b_v5e_64": ("otc_grpo", "v5e-64", 4096),
    "otc_grpo_qwen3_8b_v6e_16": ("otc_grpo", "v6e-16", 40_960),
    "retool_32b_v6e_64": ("retool_grpo", "v6e-64", 32_768),
    "retool_r1_distill_32b_v5p_128": ("retool_grpo", "v5p-128", 131_072),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_shapes_are_near_those_of_the_run_files_made_by_hand(name, folder, tmp_path):
    recipe, hardware, context = BY_HAND[name]
    hand = load_run([f"gin_configs/runs/{name}.gin"])
    model = write_shape(tmp_path / "model", hand.policy.model_config(), context)
    run = derive(
        wish(
            folder,
            recipe,
            hardware,
            model=str(model),
            response_tokens=hand.rollout.max_response_tokens,
            problems_per_step=hand.schedule.problems_per_step,
            samples=hand.schedule.samples,
            int8=hand.engine.numerics.weights == "int8",
        )
    )
    config = built(run, tmp_path)
    sizes = {"context": hand.mesh.context, "tensor": hand.mesh.tensor}
    decoder = math.prod(sizes[axis] for axis in hand.decoder_rules.mlp)
    assert run.cut.tensor == config.mesh.tensor == decoder
    # One has smaller groups in its learner, which the formula does not know.
    assert config.axes == hand.axes or hand.decoder_axes is not None
    assert config.mesh.fsdp == hand.mesh.fsdp
    # Rows of a paged cache share a pool; a cache without pages held 24 in that memory.
    by_hand = hand.engine.decode_rows if hand.engine.pages is None else 24
    assert 0.5 <= run.decode_rows / by_hand <= 2
    assert 0.5 <= run.micro_batch_rows / hand.grpo.micro_batch_rows <= 2
    assert abs(run.tokens - hand.engine.max_tokens) <= 2048  # their prompts were another file's
    assert run.memory.most <= run.hardware.room


def test_prompts_are_measured_by_the_models_own_tokenizer(folder):
    run = derive(wish(folder))
    config = wish(folder)
    task = run_source.problem_file(config.data, None)
    tokenizer = run.model.tokenizer.load()
    renderer = load_renderer(run.renderer)
    both = [*task.problems("train", None, 0), *task.problems("validation", None, 0)]
    exact = [len(renderer.prompt_ids(tokenizer, problem)) for problem in both]
    assert run.prompts.longest == max(exact)
    found = run_source.prompt_lengths(both, renderer, tokenizer)
    assert max(found) == max(exact)
    assert max(abs(a - b) for a, b in zip(found, exact, strict=True)) <= 2


def test_long_prompts_are_left_out_where_that_is_asked(folder, tmp_path):
    run = derive(wish(folder))
    shorter = derive(wish(folder, prompt_tokens=run.prompts.longest - 1))
    assert shorter.prompts.left_out > 0
    assert built(shorter, tmp_path).rollout.long_prompts == "filter"
    assert built(run, tmp_path).rollout.long_prompts == "refuse"


def test_without_a_chat_template_the_prompt_is_plain(folder):
    assert derive(wish(folder, model=str(folder / "base"))).renderer == "retool_base"
    assert derive(wish(folder)).renderer == "retool"


def test_a_response_is_cut_to_the_context(folder):
    run = derive(wish(folder, hardware="v6e-64"))
    assert run.response_tokens == CONTEXT - run.prompts.tokens
    with pytest.raises(
        ValueError, match=r"positions reach to 4096 tokens, .*--response_tokens 9999"
    ):
        derive(wish(folder, hardware="v6e-64", response_tokens=9999))


def test_a_judge_that_can_read_the_answers_is_taken(folder, tmp_path):
    assert isinstance(derive(wish(folder)).judge, Mathematics)
    words = tmp_path / "words.jsonl"
    names = ("Anna Smith", "Bob Dylan", "the Chief of Protocol")
    rows = [{"question": f"Who is number {i}?", "answer": names[i % 3]} for i in range(30)]
    words.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = derive(wish(folder, data=str(words)))
    assert isinstance(run.judge, ExactMatch)
    assert isinstance(built(run, tmp_path).judge, ExactMatch)
    with pytest.raises(ValueError, match=r"RlConfig.judge=Mathematics: .* choose ExactMatch"):
        derive(wish(folder, data=str(words), judge="math"))


def test_demonstrations_of_retool_are_read_behind_their_mark(folder, tmp_path):
    run = derive(wish(folder, "sft"))
    assert run.question_after == "*user question:*"
    config = built(run, tmp_path)
    assert config.streams[0].demonstrations.question_after == "*user question:*"
    assert config.pack.row_tokens >= run.prompts.longest
    assert config.steps == 6  # two passes over 12 rows, four a step


def test_an_adapter_and_small_numbers_are_said_in_the_file(folder, tmp_path):
    run = derive(wish(folder, "otc_grpo", "a100-80g", lora=True, int8=True, adam8bit=True))
    config = built(run, tmp_path)
    assert config.lora == LoraConfig(frozen_dtype="bfloat16")
    assert config.optimizer.learning_rate == 1e-5
    assert type(config.optimizer.rule).__name__ == "AdamW8bit"
    assert config.engine.numerics.weights == "int8"
    whole = derive(wish(folder, "otc_grpo", "a100-80g"))
    assert run.memory.updating["parameters"] < whole.memory.updating["parameters"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of 32 B parameters, in name."""
    shape = load_run(["gin_configs/runs/retool_32b_v6e_64.gin"]).policy.model_config()
    return str(write_shape(tmp_path_factory.mktemp("large"), shape, 32_768))


@pytest.mark.parametrize(
    ("recipe", "hardware", "more", "said"),
    [
        ("retool_grpo", "a100-80g", {}, r"state of 32,763,876,352 parameters takes 488.2 GiB a"),
        ("otc_grpo", "a100-80g", {}, r"and 64.8 GiB may be planned \(90% of 80 GiB.*try --lora"),
        ("otc_grpo", "v5e-16", {"lora": True}, r"the decoder needs .* for one row of .*--int8"),
        ("retool_grpo", "h100-8", {"response_tokens": 30_000}, r"one row of 30\d* tokens takes"),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers_and_a_remedy(
    recipe, hardware, more, said, folder, large
):
    with pytest.raises(ValueError, match=said) as caught:
        derive(wish(folder, recipe, hardware, model=large, **more))
    assert "does not fit" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"recipe": "grpo"}, "there is no recipe 'grpo': there are retool_grpo, otc_grpo"),
        ({"hardware": "tpu"}, "unknown hardware 'tpu'"),
        (
            {"recipe": "search_r1", "search": ()},
            "--recipe search_r1 needs a search server: give --se",
        ),
        ({"search": ("x:1",)}, "--search, --corpus: the recipe retool_grpo does not search"),
        ({"data": "gsm8k=x.jsonl", "layout": "plain"}, "names the layout already"),
        ({"data": "gms8k=x.jsonl"}, "there is no layout 'gms8k'"),
        ({"data": "nothing.jsonl"}, "there is no problem file nothing.jsonl"),
        ({"model": "nowhere"}, "there are no weights nowhere"),
        ({"recipe": "sft", "int8": True}, "--int8: a cold start learns from written answers"),
    ],
    ids=lambda value: str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_in_one_line(more, said, folder):
    with pytest.raises((ValueError, OSError), match=said) as caught:
        derive(dataclasses.replace(wish(folder, more.get("recipe", "retool_grpo")), **more))
    assert "\n" not in str(caught.value)


def test_devices_that_do_not_divide_the_model_are_refused(folder, tmp_path):
    odd = write_shape(tmp_path / "odd", dataclasses.replace(MODEL, d_model=72), CONTEXT)
    with pytest.raises(ValueError, match=r"d_model=72 is no multiple of 16 devices"):
        derive(wish(folder, hardware="v5e-16", model=str(odd)))


def test_a_step_has_no_more_problems_than_there_are(folder):
    run = derive(wish(folder, "otc_grpo", "v5e-16"))
    assert run.problems_per_step == run.rows < 128


def test_problems_are_no_demonstrations(folder):
    data = str(folder / "gsm8k.jsonl")
    with pytest.raises(
        ValueError, match=r"sft learns from demonstrations: .*gsm8k.jsonl:1: .*'messa"
    ):
        derive(wish(folder, "sft", data=data))


def test_a_model_without_a_tokenizer_is_refused(folder, tmp_path):
    model = write_shape(tmp_path / "model", MODEL, CONTEXT)
    (model / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .* it needs one of"):
        derive(wish(folder, model=str(model)))


def test_the_table_sums_up_both_moments(folder):
    run = derive(wish(folder, hardware="a100-80g"))
    *rows, together = run_facts.memory_rows(run)
    for column in (1, 2):
        assert together[column] == pytest.approx(sum(row[column] or 0 for row in rows))
    names = [name for name, _, updating in rows if updating is None]
    assert names == ["decoder's copy", "cache and logits", "prefill"]  # unloaded for the update
