"""The problems of an RL run, all of them drawn and looked at before its first step.

Not covered: their order (`jaxtool.data.batches`).
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.core.types import Problem
from jaxtool.data.problems import ProblemFile
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.judges.references import check_references
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.prompt_lengths import fitting_problems
from jaxtool.train.rl_config import RlConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSets:
    """What a run asks."""

    training: tuple[Problem, ...]  # its pool
    validation: tuple[Problem, ...]  # () where the run does not validate
    judging: str  # how their references go with the run's judge, in one line
    data: str = ""  # what the run's file held, in one line; "" where the problems are of no file


def draw_problems(
    config: RlConfig, seed: int, renderer: Renderer, tokenizer: Tokenizer
) -> ProblemSets:
    """The sets of a run, without prompts that do not fit where the run leaves those out.

    Raises:
      ValueError: a split holds fewer problems than the run asks of it, a prompt does not fit, too few
        problems are left for a step, or the run's judge cannot judge the references.
    """
    schedule = config.schedule
    pool = config.task.problems("train", schedule.pool, seed)
    training = fitting(config, pool, renderer, tokenizer, "the training problems")
    if len(training) < schedule.problems_per_step:
        raise ValueError(
            f"{len(training)} training problems are fewer than Schedule.problems_per_step="
            f"{schedule.problems_per_step}"
        )
    validation: list[Problem] = []
    if schedule.eval_every:
        asked = config.task.problems("validation", schedule.eval_problems, seed)
        validation = fitting(config, asked, renderer, tokenizer, "the validation problems")
    return ProblemSets(
        training=tuple(training),
        validation=tuple(validation),
        judging=check_references(config.judge, [*training, *validation]),
        data=str(config.task.training_set) if isinstance(config.task, ProblemFile) else "",
    )


def fitting(
    config: RlConfig,
    problems: Sequence[Problem],
    renderer: Renderer,
    tokenizer: Tokenizer,
    what: str,
) -> list[Problem]:
    """`fitting_problems` with the run's limits."""
    return fitting_problems(
        problems,
        renderer=renderer,
        tokenizer=tokenizer,
        max_response_tokens=config.rollout.max_response_tokens,
        max_tokens=config.engine.max_tokens,
        long_prompts=config.rollout.long_prompts,
        what=what,
    )
