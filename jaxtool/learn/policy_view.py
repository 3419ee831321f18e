"""What a policy is made of besides its trained part: the frozen part, and the policy it began as."""

import dataclasses

import jax

from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import FrozenPolicy, LoraConfig, init_adapter
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyView:
    """How parameters that are trained become a policy. No update changes it.

    Without LoRA all of the policy is trained, and nothing is frozen. With LoRA an adapter is trained. It
    begins with B = 0, so the frozen policy is the first policy as well, and no copy of it is kept.
    """

    frozen: FrozenPolicy | None = None
    first_copy: Params | None = (
        None  # of the first policy, where a KL needs it and nothing is frozen
    )

    def full(self, trained: Params) -> Params:
        """All parameters of the policy that `trained` stands for. No array is made."""
        return trained if self.frozen is None else self.frozen.with_adapter(trained)

    @property
    def first(self) -> Params:
        """Parameters that the run began with: the reference of the KL terms.

        Raises:
          ValueError: they were not kept.
        """
        params = self.first_copy if self.frozen is None else self.frozen.params
        if params is None:
            raise ValueError("a KL term needs the first policy, and this view keeps no copy of it")
        return params


def split_policy(
    params: Params,
    model: ModelConfig,
    lora: LoraConfig | None,
    key: jax.Array,
    sharding: Sharding,
    *,
    keeps_first: bool = False,
) -> tuple[Params, PolicyView]:
    """What a run trains of the policy it begins with, and the view that makes a policy of it again.

    Args:
      params: of `source_dtype(lora)`; not copied.
      key: of the adapter's first numbers.
      keeps_first: whether a KL term needs the first policy. With LoRA it is kept anyway.
    """
    if lora is None:
        return params, PolicyView(first_copy=params if keeps_first else None)
    adapter = init_adapter(model, lora, key, sharding)
    return adapter, PolicyView(frozen=FrozenPolicy(params=params, config=lora))
