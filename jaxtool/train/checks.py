"""What a run refuses before it reads weights. A plan refuses the same, by the same function."""

from jaxtool.judges.references import check_references
from jaxtool.model.config import ModelConfig
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.train.devices import check_shardings
from jaxtool.train.overlapped_rollouts import check_one_host
from jaxtool.train.rl_config import RlConfig


def check_run(
    config: RlConfig, model: ModelConfig, learner: Sharding, decoder: Sharding, num_hosts: int
) -> None:
    """Checks that need no array.

    Args:
      model: the policy's.
      learner: over all devices.
      decoder: over the devices of one host.

    Raises:
      ValueError: rollouts overlap on several hosts, or the meshes do not divide the model, the rows of
        a gradient computation or the positions of a packed row.
    """
    check_one_host(config.schedule.max_staleness, num_hosts)
    check_shardings(config, model, learner, decoder)


def check_problems(config: RlConfig, seed: int) -> str:
    """One line that says how the references of the run's problems go with its judge.

    Raises:
      ValueError: they do not.
    """
    problems = config.task.problems("train", config.schedule.pool, seed)
    if config.schedule.eval_every:
        problems += config.task.problems("validation", config.schedule.eval_problems, seed)
    return check_references(config.judge, problems)
