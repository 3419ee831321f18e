"""Configurables for the tests of the gin loader, shaped like those of a run."""

import dataclasses
import enum
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol


class Mode(enum.StrEnum):
    PAPER = "paper"
    SHAPED = "shaped"


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


class Schedule(Protocol):
    def __call__(self, step: int) -> float: ...


class Dataset(Protocol):
    size: int

    def sample(self, index: int) -> str: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListDataset:
    size: int = 3

    def sample(self, index: int) -> str:
        return f"problem {index % self.size}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    width: int
    depth: int = 2
    dropout: float = 0.0
    rope_scaling: Mapping[str, float] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamConfig:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"{self.learning_rate=} must be positive")


def constant(step: int, *, value: float = 1.0) -> float:
    return value


def linear(step: int, *, slope: float) -> float:
    return slope * step


def tiny_model(*, width: int = 8) -> ModelConfig:
    return ModelConfig(width=width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    model: ModelConfig
    reference: ModelConfig | None = None
    optimizer: AdamConfig = AdamConfig()
    dataset: Dataset = ListDataset()
    schedule: Schedule = constant
    mode: Mode = Mode.PAPER
    kind: Kind = Kind.FIRST
    aggregation: Literal["token", "sequence"] = "token"
    steps: int = 10
    levels: tuple[str, ...] = ()
    weights: Sequence[float] = (1.0,)
    hooks: tuple[Callable[..., Any], ...] = ()
    data: pathlib.Path | None = None
    is_quiet: bool = False

    def __post_init__(self) -> None:
        if self.is_quiet and self.optimizer.clip is not None:
            raise ValueError(
                f"RunConfig.is_quiet does not go with AdamConfig.clip={self.optimizer.clip}"
            )


def train(*, config: RunConfig, seed: int = 0) -> str:
    return f"trained {config.steps} steps with seed {seed}"
