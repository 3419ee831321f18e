"""What the rows, the tokens and the policy's widths of an RL run must divide over: its learner and its decoder.

Every such check is made here, before weights are read, and by these `jaxtool.parallel.mesh` finds how many devices a
run can use. A cold start has its own beside its configuration.
"""

from jax.sharding import Mesh

from jaxtool.decode.memory import check_rows
from jaxtool.learn.state import check_micro_batch_rows, check_row_tokens
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import check_divides
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh
from jaxtool.train.rl_config import RlConfig


def check_mesh(mesh: Mesh, config: RlConfig, model: ModelConfig) -> None:
    """Raises ValueError if the policy, a gradient block, a packed row or the decoder's rows do not divide."""
    learning = Sharding(mesh, config.axes)
    decoding = Sharding(decode_mesh(mesh), decode(config.axes))
    check_divides(model, learning)
    check_divides(model, decoding)
    check_micro_batch_rows(config.grpo.micro_batch_rows, learning)
    check_row_tokens(config.pack.row_tokens, learning)
    check_rows(config.engine, decoding)
