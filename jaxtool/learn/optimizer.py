"""Optimizers by configuration: AdamW, the same with moments of 8 bits, Adafactor, and Muon.

`OptimizerConfig` holds what all share (learning rate, warm-up, decay, weight decay, clipping) and one
of four update rules, each with its own settings alone. Bytes of state a parameter: AdamW 8, AdamW8bit
about 2, Adafactor next to none (its second moments are factored, and there is no first one), Muon 4.
"""

import dataclasses
from typing import Any, Protocol

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from jaxtool.config.callables import check_takes
from jaxtool.core.ranges import check_range
from jaxtool.learn.adam8bit import scale_by_adam8bit
from jaxtool.model.lora import LoraConfig
from jaxtool.model.param_axes import axes_of, path_name


class UpdateRule(Protocol):
    """Makes the optimizer of the shared settings. Frozen dataclasses or functions: jit-static."""

    def __call__(self, shared: "OptimizerConfig", /) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (1711.05101), clipped by the global norm."""

    b1: float = 0.9
    b2: float = 0.95

    def __post_init__(self) -> None:
        check_range(self, "b1", "b2", least=0, below=1)

    def __call__(self, shared: "OptimizerConfig", /) -> optax.GradientTransformation:
        schedule = shared.schedule(shared.learning_rate)
        inner = optax.adamw(schedule, b1=self.b1, b2=self.b2, weight_decay=shared.weight_decay)
        return optax.chain(optax.clip_by_global_norm(shared.max_grad_norm), inner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW8bit:
    """AdamW whose moments are kept in 8 bits (2110.02861); see `adam8bit`."""

    b1: float = 0.9
    b2: float = 0.95

    def __post_init__(self) -> None:
        check_range(self, "b1", "b2", least=0, below=1)

    def __call__(self, shared: "OptimizerConfig", /) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_adam8bit(self.b1, self.b2, max_norm=shared.max_grad_norm),
            optax.add_decayed_weights(shared.weight_decay),
            optax.scale_by_learning_rate(shared.schedule(shared.learning_rate)),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor:
    """Shazeer and Stern (1804.04235), with learning rate and weight decay in AdamW's units.

    It has no first moment, and its second decays by 1 - t^-0.8 at step t.
    """

    def __call__(self, shared: "OptimizerConfig", /) -> optax.GradientTransformation:
        schedule = shared.schedule(shared.learning_rate)
        decay = shared.weight_decay
        inner = optax.adafactor(
            schedule,
            # Below it both largest axes could be layers and heads, whose statistics nothing shares.
            min_dim_size_to_factor=128,
            multiply_by_parameter_scale=False,
            weight_decay_rate=(lambda step: decay * schedule(step)) if decay else None,
        )
        return optax.chain(optax.clip_by_global_norm(shared.max_grad_norm), inner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for the matrices of a policy trained from scratch, AdamW for the rest.

    The shared learning rate is the one of the rest.
    """

    matrix_learning_rate: float = 0.02  # in units of the orthogonalised momentum
    b1: float = 0.9  # of the rest
    b2: float = 0.95  # of the rest

    def __post_init__(self) -> None:
        check_range(self, "b1", "b2", least=0, below=1)
        check_range(self, "matrix_learning_rate", above=0)

    def __call__(self, shared: "OptimizerConfig", /) -> optax.GradientTransformation:
        inner = optax.contrib.muon(
            shared.schedule(self.matrix_learning_rate),
            weight_decay=shared.weight_decay,
            adam_b1=self.b1,
            adam_b2=self.b2,
            adam_learning_rate=shared.schedule(shared.learning_rate),
            muon_weight_dimension_numbers=_matrix_axes,
        )
        return optax.chain(optax.clip_by_global_norm(shared.max_grad_norm), inner)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """The learning rate falls along a cosine after the warm-up."""

    total_steps: int  # warm-up included
    end_fraction: float = 0.02  # of the learning rate, where the cosine ends

    def __post_init__(self) -> None:
        check_range(self, "total_steps", least=1)
        check_range(self, "end_fraction", least=0, most=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Gradients are clipped by their global norm, then the rule. ReTool: AdamW, constant 1e-6."""

    rule: UpdateRule = dataclasses.field(default_factory=AdamW)
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay: Cosine | None = None  # None: the learning rate stays
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "learning_rate", above=0)
        check_range(self, "warmup_steps", "weight_decay", least=0)
        check_range(self, "max_grad_norm", above=0, may_be_infinite=True)
        check_takes(self.rule, ("shared",), "OptimizerConfig.rule")
        if self.decay is not None and self.decay.total_steps <= self.warmup_steps:
            raise ValueError(
                f"a cosine needs Cosine.total_steps={self.decay.total_steps} > {self.warmup_steps=}"
            )

    def check_goes_with(self, lora: LoraConfig | None) -> None:
        """Raises ValueError if an adapter cannot be trained by this optimizer."""
        if lora is not None and isinstance(self.rule, Muon):
            raise ValueError(
                "OptimizerConfig.rule=Muon orthogonalises whole kernels, which LoRA leaves frozen: "
                "choose AdamW, or no lora"
            )

    def schedule(self, peak: float) -> optax.Schedule:
        """Warm-up to `peak`, then the decay: of the learning rate, or of a rule's second one."""
        if self.decay is not None:
            start = 0.0 if self.warmup_steps else peak
            return optax.warmup_cosine_decay_schedule(
                start,
                peak,
                self.warmup_steps,
                self.decay.total_steps,
                peak * self.decay.end_fraction,
            )
        if not self.warmup_steps:
            return optax.constant_schedule(peak)
        return optax.linear_schedule(peak / self.warmup_steps, peak, self.warmup_steps)

    def optimizer(self) -> optax.GradientTransformation:
        return self.rule(self)


def _matrix_axes(params: Any) -> Any:
    """Which axes of each stacked kernel are rows and columns; None (AdamW) for all else."""

    def leaf(path: tuple[Any, ...], x: Any) -> MuonDimensionNumbers | None:
        del x
        name = path_name(path)
        if not name.startswith("layers/") or not name.endswith("/kernel"):
            return None
        axes = axes_of(name)
        inputs = (
            1 if axes[1] in ("embed", "mlp") else 2
        )  # the output projection reads heads x width
        return MuonDimensionNumbers(
            tuple(range(1, 1 + inputs)), tuple(range(1 + inputs, len(axes)))
        )

    return jax.tree_util.tree_map_with_path(leaf, params)
