"""The problems of an RL run, all of them drawn and looked at before its first step.

Not covered: their order (`jaxtool.data.batches`).
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.core.types import Problem
from jaxtool.data.batches import ProblemBatches, Share
from jaxtool.data.difficulty import Difficulty
from jaxtool.data.mixtures import Mixture
from jaxtool.data.problems import ProblemFile, Task
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
    parts: tuple[Share, ...] = ()  # of a mixture: the sets that `training` is made of

    def batches(self, config: RlConfig, seed: int) -> ProblemBatches:
        """The stream of the run's training problems, at its beginning."""
        size = config.schedule.problems_per_step
        return ProblemBatches(self.training, batch_size=size, seed=seed, parts=self.parts)


def draw_problems(
    config: RlConfig, seed: int, renderer: Renderer, tokenizer: Tokenizer
) -> ProblemSets:
    """The sets of a run, without prompts that do not fit where the run leaves those out.

    Raises:
      ValueError: a split holds fewer problems than the run asks of it, a prompt does not fit, too few
        problems are left for a step, or the run's judge cannot judge the references.
    """
    schedule = config.schedule
    task, parts = config.task, ()
    if isinstance(task, Mixture):
        pools = task.by_part("train", schedule.pool, seed)
        fit = [
            fitting(config, pool, renderer, tokenizer, f"the training problems of part {number}")
            for number, pool in enumerate(pools)
        ]
        training = [problem for part in fit for problem in part]
        parts = tuple(
            Share(size=len(part), share=share) for part, share in zip(fit, task.shares, strict=True)
        )
    else:
        pool = task.problems("train", schedule.pool, seed)
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
        data=described(task, seed),
        parts=parts,
    )


def described(task: Task, seed: int) -> str:
    """What the files of a task hold, in one line; "" where it has none."""
    if isinstance(task, ProblemFile):
        return str(task.training_set)
    if isinstance(task, Difficulty):
        return "; ".join(filter(None, (described(task.task, seed), task.summary(seed))))
    if isinstance(task, Mixture):
        parts = [
            f"{share:.1%} of {described(part.task, seed) or type(part.task).__name__}"
            for part, share in zip(task.parts, task.shares, strict=True)
        ]
        return " | ".join(parts)
    return ""


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
