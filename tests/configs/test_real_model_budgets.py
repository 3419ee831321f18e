"""The longest prompt of a task fits together with the longest response: the runs on SmolLM2, with its real tokenizer."""

import functools

import pytest
from helpers.smollm2 import smollm2_or_skip

from jaxtool.config import loader
from jaxtool.core.types import Problem
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.renderer import load_renderer
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sources import TokenizerSource

CONFIGS = loader.REPOSITORY_ROOT / "gin_configs"
FOLDERS = ("runs", "study")
LONGEST = "999 - 999 - 999 - 999"  # of CalculationTask: a chain of four terms of three digits


@functools.cache
def loaded(source: TokenizerSource) -> Tokenizer:
    """Reading a vocabulary takes seconds, and the runs have one."""
    return source.load()


def smollm2_runs() -> list[str]:
    """Files that build an RL run on this task."""
    found = []
    for file in sorted(file for folder in FOLDERS for file in (CONFIGS / folder).glob("*.gin")):
        text = file.read_text(encoding="utf-8")
        if "smollm2" in f"{file.name} {text}" and "RlConfig\n" in text.split("from __gin__")[0]:
            found.append(str(file.relative_to(loader.REPOSITORY_ROOT)))
    return found


def test_there_are_runs_on_smollm2():
    assert "gin_configs/runs/smollm2_products.gin" in smollm2_runs()
    assert len(smollm2_runs()) >= 5


@pytest.mark.real_model
@pytest.mark.parametrize("file", smollm2_runs())
def test_the_longest_prompt_and_response_fit_the_decoder(file):
    smollm2_or_skip()
    config = loader.load(RlConfig, files=[file])
    tokenizer, renderer = loaded(config.tokenizer), load_renderer(config.renderer)
    drawn = config.task.problems("train", 2000, 0)
    questions = sorted({LONGEST, *(problem.question for problem in drawn)}, key=len)
    assert len(questions[-1]) == len(LONGEST)
    problems = [Problem(problem_id=text, question=text, answer="0") for text in questions[-50:]]
    longest = max(len(renderer.prompt_ids(tokenizer, problem)) for problem in problems)
    assert longest > 100
    needed = longest + config.rollout.max_response_tokens
    print(f"{file}: {longest} + {config.rollout.max_response_tokens} of {config.engine.max_tokens}")
    assert needed <= config.engine.max_tokens
    assert config.engine.max_tokens <= config.pack.row_tokens
