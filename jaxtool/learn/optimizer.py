"""Optimizers by configuration: AdamW, the same with moments of 8 bits, Adafactor, and Muon.

Muon is for the matrices of a policy trained from scratch. Bytes of state a parameter: AdamW 8, adam8bit
about 2, Adafactor next to none (its second moments are factored, and there is no first one), Muon 4.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from jaxtool.learn.adam8bit import scale_by_adam8bit
from jaxtool.model.lora import LoraConfig
from jaxtool.model.param_axes import axes_of, path_name

Name = Literal["adamw", "adam8bit", "adafactor", "muon"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Gradients are clipped by their global norm, then the optimizer. ReTool: AdamW, constant 1e-6."""

    name: Name = "adamw"
    learning_rate: float = 1e-6  # with Muon, of what is no matrix
    muon_learning_rate: float = 0.02  # of the matrices, in units of their orthogonalised momentum
    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    total_steps: int = 0  # length of a cosine, warm-up included
    end_fraction: float = 0.02  # of the learning rate, where a cosine ends
    weight_decay: float = 0.0
    b1: float = 0.9  # Adafactor has none
    b2: float = 0.95  # Adafactor's is 1 - t^-0.8 at step t
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(Name) or self.decay not in ("constant", "cosine"):
            raise ValueError(
                f"{self.name=} must be one of {', '.join(get_args(Name))}, "
                f"{self.decay=} constant or cosine"
            )
        if self.decay == "cosine" and self.total_steps <= self.warmup_steps:
            raise ValueError(f"a cosine needs {self.total_steps=} > {self.warmup_steps=}")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0 or self.muon_learning_rate <= 0:
            raise ValueError(
                f"{self.learning_rate=}, {self.muon_learning_rate=} and {self.max_grad_norm=} "
                "must be > 0"
            )

    def check_goes_with(self, lora: LoraConfig | None) -> None:
        """Raises ValueError if an adapter cannot be trained by this optimizer."""
        if lora is not None and self.name == "muon":
            raise ValueError(
                "OptimizerConfig.name='muon' orthogonalises whole kernels, which LoRA leaves frozen: "
                "choose 'adamw', or no lora"
            )

    def schedule(self, peak: float) -> optax.Schedule:
        if self.decay == "cosine":
            start = 0.0 if self.warmup_steps else peak
            return optax.warmup_cosine_decay_schedule(
                start, peak, self.warmup_steps, self.total_steps, peak * self.end_fraction
            )
        if not self.warmup_steps:
            return optax.constant_schedule(peak)
        return optax.linear_schedule(peak / self.warmup_steps, peak, self.warmup_steps)

    def optimizer(self) -> optax.GradientTransformation:
        schedule = self.schedule(self.learning_rate)
        if self.name == "adam8bit":
            return optax.chain(
                scale_by_adam8bit(self.b1, self.b2, max_norm=self.max_grad_norm),
                optax.add_decayed_weights(self.weight_decay),
                optax.scale_by_learning_rate(schedule),
            )
        if self.name == "adafactor":
            inner = self._adafactor(schedule)
        elif self.name == "muon":
            inner = optax.contrib.muon(
                self.schedule(self.muon_learning_rate),
                weight_decay=self.weight_decay,
                adam_b1=self.b1,
                adam_b2=self.b2,
                adam_learning_rate=schedule,
                muon_weight_dimension_numbers=_matrix_axes,
            )
        else:
            inner = optax.adamw(schedule, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), inner)

    def _adafactor(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """Shazeer and Stern (1804.04235), with learning rate and weight decay in AdamW's units."""
        decay = self.weight_decay
        return optax.adafactor(
            schedule,
            # Below it both largest axes could be layers and heads, whose statistics nothing shares.
            min_dim_size_to_factor=128,
            multiply_by_parameter_scale=False,
            weight_decay_rate=(lambda step: decay * schedule(step)) if decay else None,
        )


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
