"""Prompts and splits of a run are looked at before its first step: named, refused, or left out and counted."""

import dataclasses
import json

import pytest
from helpers.chat_of_letters import ChatOfLetters
from helpers.small_runs import SmallTokenizer, rl_config

from jaxtool.core.types import Problem
from jaxtool.data.difficulty import Difficulty
from jaxtool.data.mixtures import Mixture, Part
from jaxtool.data.problems import ProblemFile
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.prompt_lengths import fitting_problems
from jaxtool.train.problem_sets import draw_problems
from jaxtool.train.rl_config import Schedule
from jaxtool.train.rollout_worker import load_text
from jaxtool.train.sft_loop import DemonstrationStream
from jaxtool.train.sft_loop import load_text as load_sft_text


@dataclasses.dataclass(frozen=True)
class Long:
    """Question number i has i + 1 digits; the prompt has an equals sign more."""

    split_of_fault: str = "train"

    def problems(self, split, count, seed):
        size = 1 if split != self.split_of_fault else None
        return [
            Problem(problem_id=f"{split}/{i}", question="1" * (size or i + 1), answer="1")
            for i in range(count or 0)
        ]


def drawn(folder, **fields):
    schedule = Schedule(
        steps=1, problems_per_step=2, pool=10, eval_every=1, eval_problems=9, samples=2
    )
    config = rl_config(folder, **({"task": Long(), "schedule": schedule} | fields))
    return draw_problems(config, 0, *load_text(config))


def test_the_first_prompt_that_does_not_fit_is_named_with_the_limit(tmp_path):
    """32 positions less 24 of response leave 8, and questions 7, 8 and 9 have 9 tokens and more."""
    with pytest.raises(ValueError, match="'train/7' with 9") as caught:
        drawn(tmp_path)
    said = str(caught.value)
    assert "3 of the training problems, 10 in all, have prompts of more than 8 tokens" in said
    assert "EngineConfig.max_tokens=32" in said
    assert "max_response_tokens=24" in said
    assert "raise it to 35 or more, or set RolloutConfig.long_prompts = 'filter'" in said
    assert "\n" not in said


def test_long_prompts_are_left_out_and_counted_where_the_run_says_so(tmp_path, capsys):
    rollout = RolloutConfig(max_response_tokens=24, max_tool_calls=2, long_prompts="filter")
    sets = drawn(tmp_path, rollout=rollout)
    assert [p.problem_id for p in sets.training] == [f"train/{i}" for i in range(7)]
    assert len(sets.validation) == 9
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: 3 of the training problems, 10 in all, ")
    assert "'train/7' with 9; they are left out" in line


def test_validation_prompts_are_looked_at_too(tmp_path):
    with pytest.raises(ValueError, match=r"2 of the validation problems.* 'validation/7' with 9"):
        drawn(tmp_path, task=Long("validation"))
    schedule = Schedule(steps=1, problems_per_step=2, pool=3, eval_every=0)
    assert drawn(tmp_path, task=Long("validation"), schedule=schedule).validation == ()


def test_a_set_of_which_nothing_or_too_little_is_left_is_refused(tmp_path):
    none = RolloutConfig(max_response_tokens=31, max_tool_calls=2, long_prompts="filter")
    with pytest.raises(ValueError, match="10 of the training problems, 10 in all") as caught:
        drawn(tmp_path, rollout=none)
    assert "filter" not in str(caught.value)
    schedule = Schedule(steps=1, problems_per_step=9, pool=10)
    some = RolloutConfig(max_response_tokens=24, max_tool_calls=2, long_prompts="filter")
    with pytest.raises(ValueError, match=r"7 training problems .*problems_per_step=9"):
        drawn(tmp_path, rollout=some, schedule=schedule)


def test_more_validation_problems_than_the_split_holds_are_refused(tmp_path):
    rows = [json.dumps({"question": f"{i}", "answer": "1"}) for i in range(40)]
    (tmp_path / "set.jsonl").write_text("\n".join(rows))
    task = ProblemFile(path=str(tmp_path / "set.jsonl"))
    schedule = Schedule(steps=1, problems_per_step=2, pool=None, eval_every=1, eval_problems=39)
    with pytest.raises(
        ValueError, match=r"39 problems asked of split .validation. of .*set\.jsonl"
    ):
        drawn(tmp_path, task=task, schedule=schedule)


def test_a_mixture_keeps_its_shares_behind_the_filter_of_long_prompts(tmp_path):
    """Of ten problems of the second part seven fit; a batch has two of each part all the same."""
    rows = [json.dumps({"question": f"{i}", "answer": "1"}) for i in range(60)]
    (tmp_path / "set.jsonl").write_text("\n".join(rows))
    (tmp_path / "rates.jsonl").write_text(
        "\n".join(json.dumps({"question": f"{i}", "solve_rate": i % 2 / 2}) for i in range(60))
    )
    file = ProblemFile(path=str(tmp_path / "set.jsonl"))
    odd = Difficulty(task=file, rates=str(tmp_path / "rates.jsonl"))
    task = Mixture(parts=(Part(task=odd, weight=1.0), Part(task=Long(), weight=1.0)))
    rollout = RolloutConfig(max_response_tokens=24, max_tool_calls=2, long_prompts="filter")
    schedule = Schedule(steps=1, problems_per_step=4, pool=20)
    config = rl_config(tmp_path, task=task, rollout=rollout, schedule=schedule)
    sets = draw_problems(config, 0, *load_text(config))
    assert [(part.size, part.share) for part in sets.parts] == [(10, 0.5), (7, 0.5)]
    assert all(int(p.question) % 2 for p in sets.training[:10])
    batches = sets.batches(config, 0)
    for _ in range(9):
        batch = next(batches)
        assert sum(p.problem_id.startswith("train/") for p in batch) == 2
    state = batches.get_state()
    again = sets.batches(config, 0)
    again.set_state(state)
    assert next(again) == next(batches)
    assert "50.0% of " in sets.data
    assert "0 < solve rate < 1" in sets.data


def test_another_word_for_long_prompts_is_refused():
    with pytest.raises(ValueError, match="long_prompts='drop' must be 'refuse' or 'filter'"):
        RolloutConfig(long_prompts="drop")  # type: ignore[arg-type]


class Counting(ChatOfLetters):
    """Keeps the texts that it is given."""

    def __init__(self):
        super().__init__()
        self.texts: list[str] = []

    def encode(self, text):
        self.texts.append(text)
        return super().encode(text)


def test_short_prompts_are_not_tokenised():
    problems = [
        Problem(problem_id="short", question="q" * 10, answer=""),
        Problem(problem_id="wide", question="é" * 10, answer=""),  # bytes could be tokens
        Problem(problem_id="long", question="q" * 100, answer=""),
    ]
    tokenizer, lines = Counting(), []
    kept = fitting_problems(
        problems,
        renderer=load_renderer("arithmetic_text"),
        tokenizer=tokenizer,
        max_response_tokens=100,
        max_tokens=150,
        long_prompts="filter",
        what="these",
        report=lines.append,
    )
    assert [p.problem_id for p in kept] == ["short", "wide"]
    # The shortest is measured for the template; of the others those that bytes do not decide.
    assert sum("é" in text or "q" in text for text in tokenizer.texts) == 3
    assert len(lines) == 1


def test_a_long_template_does_not_have_every_question_tokenised():
    """100 questions behind a template of hundreds of letters: the shortest and the longest are looked at."""
    renderer, tokenizer = load_renderer("search_r1"), Counting()
    problems = [Problem(problem_id=str(i), question="q" * (10 + i), answer="") for i in range(100)]
    ids = [len(renderer.prompt_ids(tokenizer, problem)) for problem in problems]
    tokenizer.texts.clear()
    kept = fitting_problems(
        problems,
        renderer=renderer,
        tokenizer=tokenizer,
        max_response_tokens=100,
        max_tokens=100
        + ids[0]
        + 10
        + 32
        + 98
        + 1,  # as many as the question before the last may have
        long_prompts="refuse",
        what="these",
    )
    assert kept == problems
    asked = {text.count("q") for text in tokenizer.texts}
    assert len(asked - {min(asked)}) <= 3


def test_demonstrations_longer_than_a_row_are_found_at_the_start(tmp_path):
    """Not at the step that draws them."""
    turns = [("1+1", "2!!"), ("1+2", "3" * 40 + "!!")]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in turns
    ]
    path = tmp_path / "demos.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    plain = rl_config(tmp_path)

    @dataclasses.dataclass(frozen=True)
    class Config:
        tokenizer = SmallTokenizer()
        pack = PackConfig(row_tokens=32)
        streams = (
            DemonstrationStream(
                demonstrations=DemonstrationFile(path=str(path)), renderer=plain.renderer, count=1
            ),
        )

    with pytest.raises(ValueError, match=r"demos\.jsonl:2: the demonstration has 46 tokens"):
        load_sft_text(Config())  # type: ignore[arg-type]
