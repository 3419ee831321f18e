"""What the rows, the tokens and the policy's widths of an RL run must divide over: its learner and its decoder.

Every such check is made here, before weights are read, and by these `jaxtool.parallel.mesh` finds how many devices a
run can use. A cold start's are in `sft_loop`.
"""

from jax.sharding import Mesh

from jaxtool.decode.memory import check_rows
from jaxtool.learn.state import check_micro_batch_rows, check_row_tokens
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import check_divides
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_arrays import decode_mesh
from jaxtool.parallel.mesh import make_mesh
from jaxtool.train.rl_config import RlConfig


def make_shardings(
    config: RlConfig, model: ModelConfig, mesh: Mesh | None = None
) -> tuple[Sharding, Sharding]:
    """Of the learner, over all devices, and of the decoder, over those of this host.

    Args:
      model: the policy's.
      mesh: of the learner, in place of the one that `config.mesh` makes of all devices.

    Raises:
      ValueError: a mesh that the run names does not divide what must divide over it.
    """
    if mesh is None:
        mesh = make_mesh(config.mesh, check=lambda mesh: check_mesh(mesh, config, model))
    else:
        check_mesh(mesh, config, model)
    return shardings_on(mesh, config)


def shardings_on(mesh: Mesh, config: RlConfig) -> tuple[Sharding, Sharding]:
    """Of the learner and of the decoder on that mesh."""
    rules = config.decoder_rules
    return Sharding(mesh, config.axes), Sharding(decode_mesh(mesh, rules), rules)


def check_mesh(mesh: Mesh, config: RlConfig, model: ModelConfig) -> None:
    """Raises ValueError if the policy, a gradient block, a packed row or the decoder's rows do not divide."""
    check_shardings(config, model, *shardings_on(mesh, config))


def check_shardings(
    config: RlConfig, model: ModelConfig, learner: Sharding, decoder: Sharding
) -> None:
    """The same of shardings that are there; a plan's are of devices that are not.

    Args:
      model: the policy's.
      learner: over all devices.
      decoder: over the devices of one host.
    """
    check_divides(model, learner)
    check_divides(model, decoder)
    check_micro_batch_rows(config.grpo.micro_batch_rows, learner)
    check_row_tokens(config.pack.row_tokens, learner)
    check_rows(config.engine, decoder)
