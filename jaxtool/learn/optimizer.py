"""Optimizers by configuration: AdamW, and Muon for the matrices of a policy trained from scratch."""

import dataclasses
from typing import Any, Literal

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from jaxtool.model.param_axes import axes_of, path_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Gradients are clipped by their global norm, then AdamW or Muon. ReTool: AdamW, constant 1e-6."""

    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-6  # of AdamW; with Muon, of what is no matrix
    muon_learning_rate: float = 0.02  # of the matrices, in units of their orthogonalised momentum
    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    total_steps: int = 0  # length of a cosine, warm-up included
    end_fraction: float = 0.02  # of the learning rate, where a cosine ends
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon") or self.decay not in ("constant", "cosine"):
            raise ValueError(
                f"{self.name=} must be adamw or muon, {self.decay=} constant or cosine"
            )
        if self.decay == "cosine" and self.total_steps <= self.warmup_steps:
            raise ValueError(f"a cosine needs {self.total_steps=} > {self.warmup_steps=}")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0 or self.muon_learning_rate <= 0:
            raise ValueError(
                f"{self.learning_rate=}, {self.muon_learning_rate=} and {self.max_grad_norm=} "
                "must be > 0"
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
        if self.name == "muon":
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
