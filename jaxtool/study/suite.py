"""What a study is made of: variants that start from one another, and what all of them are asked.

Every variant of a seed starts from the same first policy or cold start, or from the policy of another variant that did,
and has the same task, steps, batch, learning rate and budgets; what differs is in its gin file.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxtool.config.places import CONFIGS

Set = Literal["default", "ablations", "all"]
RECIPE = "retool_grpo"  # the variant in whose run those without rollouts are asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One stage of training that starts where `start` ended."""

    name: str
    start: str | None = (
        "cold_start"  # the variant whose policy it continues; None: that of its file
    )
    is_trained: bool = (
        True  # False: has no file; the policy that it starts from, asked in this variant's renderer
    )
    # Renderer in which a stage without rollouts is asked; None: that of its own rollouts.
    renderer: str | None = None
    what: str  # one line for tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """The variants of a study on one policy and task. Names of variants mean the same role in every suite, but for the first."""

    name: str  # begins the names of its gin files
    default: tuple[Variant, ...]
    ablations: tuple[Variant, ...] = ()
    compared_with: tuple[str, ...] = ()  # variants that the set of ablations includes
    # Of variants, each with today's: an old one is refused with it.
    old_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    equal_steps: str  # ReTool-GRPO for as many steps as OTC from its policy has in all
    mental_renderer: str  # without a tool: in it a policy that has one must answer at once
    mental_problems: int = 256  # of the validation split, if the study asks as many held-out ones
    problems: int = 600  # held out, of each seed
    # Sampled by the policy, after which variants are compared.
    token_budgets: tuple[int, ...] = (30_000, 60_000, 90_000, 150_000)

    @functools.cached_property
    def variants(self) -> Mapping[str, Variant]:
        return {variant.name: variant for variant in (*self.default, *self.ablations)}

    def select(self, names: Sequence[str], chosen: Set = "default") -> tuple[Variant, ...]:
        """Variants of a set, or those of `names`, each after the one that it starts from.

        Raises:
          ValueError: naming what is no variant.
        """
        for name in names:
            if name not in self.variants and name in self.old_names:
                raise ValueError(f"variant {name} is an old name; write {self.old_names[name]}")
        if unknown := [name for name in names if name not in self.variants]:
            raise ValueError(
                f"unknown variants {', '.join(unknown)}; there are {', '.join(self.variants)}"
            )
        ablations = (*(self.variants[name] for name in self.compared_with), *self.ablations)
        sets = {"default": self.default, "ablations": ablations, "all": self.variants.values()}
        order: dict[str, Variant] = {}
        for variant in [self.variants[name] for name in names] or sets[chosen]:
            line = [variant]
            while (start := line[-1].start) is not None:
                line.append(self.variants[start])
            order |= {one.name: one for one in reversed(line) if one.name not in order}
        return tuple(order.values())

    def file(self, variant: Variant) -> Path:
        """The gin file of a variant; the recipe's for one that is not trained."""
        name = variant.name if variant.is_trained else RECIPE
        return CONFIGS / "study" / f"{self.name}_{name}.gin"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """What a study does otherwise than its suite says, the same in every variant."""

    steps: int | None = None  # of every variant that trains
    params: tuple[str, ...] = ()  # bindings of every variant with rollouts, and of the evaluations

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"{self.steps=} must be >= 1")
