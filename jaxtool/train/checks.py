"""What a run refuses before it reads weights. A plan refuses the same, by the same function."""

from jaxtool.learn.state import check_micro_batch_rows, check_row_tokens
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import check_divides
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.train.overlapped_rollouts import check_one_host
from jaxtool.train.rl_config import RlConfig


def check_run(
    config: RlConfig, model: ModelConfig, learner: Sharding, decoder: Sharding, num_hosts: int
) -> None:
    """Checks that need no array. The rows of the decoder are checked by `plan_memory`.

    Args:
      model: the policy's.
      learner: over all devices.
      decoder: over the devices of one host.

    Raises:
      ValueError: rollouts overlap on several hosts, or the meshes do not divide the model, the rows of
        a gradient computation or the positions of a packed row.
    """
    check_one_host(config.schedule.max_staleness, num_hosts)
    check_divides(model, learner)
    check_divides(model, decoder)
    check_micro_batch_rows(config.grpo.micro_batch_rows, learner)
    check_row_tokens(config.pack.row_tokens, learner)
