"""Whether a run's problems can be learned from, found out before weights are read. Knows no weights."""

from jaxtool.judges.references import check_references
from jaxtool.train.rl_config import RlConfig


def check_problems(config: RlConfig, seed: int) -> str:
    """One line that says how the references of the run's problems go with its judge.

    Raises:
      ValueError: they do not.
    """
    problems = config.task.problems("train", config.schedule.pool, seed)
    if config.schedule.eval_every:
        problems += config.task.problems("validation", config.schedule.eval_problems, seed)
    return check_references(config.judge, problems)
