"""Recipes of `experiments.new_run`: what a paper says of a run, apart from model, data and machine.

Numbers are those of the papers' run files in gin_configs/runs, whose headers cite them. Not covered: shapes
(`run_shapes`, `run_memory`).
"""

import dataclasses
from typing import Literal

from jaxtool.rollout.call_rules import AtToolLimit

Tool = Literal["python", "search", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train."""

    name: str
    about: str  # one line, with the paper
    tool: Tool
    renderer: str  # with a chat template
    renderer_base: str  # without one
    response_tokens: int  # policy and tools together
    problems_per_step: int = 128
    samples: int = 16
    updates_per_batch: int = 2
    learning_rate: float = 1e-6
    max_tool_calls: int = 0
    at_tool_limit: AtToolLimit = "finish"
    aggregation: Literal["TokenMean", "SequenceMean"] = "TokenMean"
    overlays: tuple[str, ...] = ()  # of gin_configs, after algos/grpo.gin
    is_sft: bool = False

    @property
    def needs_reference(self) -> bool:
        """A KL term keeps a copy of the first policy."""
        return "algos/kl.gin" in self.overlays


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="retool_grpo",
            about="ReTool (2504.11536) with GRPO: Python in <code> tags, outcome reward",
            tool="python",
            renderer="retool",
            renderer_base="retool_base",
            response_tokens=16384,
            problems_per_step=512,
            updates_per_batch=8,
            max_tool_calls=8,
        ),
        Recipe(
            name="otc_grpo",
            about="OTC-GRPO (2504.14870): right answers are worth less the more calls they took",
            tool="python",
            renderer="retool",
            renderer_base="retool_base",
            response_tokens=3072,
            max_tool_calls=3,
            at_tool_limit="continue",
            aggregation="SequenceMean",
            overlays=("algos/otc_grpo.gin",),
        ),
        Recipe(
            name="torl",
            about="ToRL (2503.23383): from a base model, Python in fenced blocks, one call",
            tool="python",
            renderer="torl",
            renderer_base="torl",
            response_tokens=3072,
            max_tool_calls=1,
            at_tool_limit="continue",
        ),
        Recipe(
            name="search_r1",
            about="Search-R1 (2503.09516) with GRPO: a search tool, exact match, KL 0.001",
            tool="search",
            renderer="search_r1",
            renderer_base="search_r1_base",
            response_tokens=3584,
            problems_per_step=512,
            samples=5,
            updates_per_batch=10,
            max_tool_calls=4,
            at_tool_limit="force_answer",
            aggregation="SequenceMean",
            overlays=("algos/kl.gin",),
        ),
        Recipe(
            name="text_rl",
            about="RL without a tool: reasoning in words, the answer in a box",
            tool="none",
            renderer="boxed_text",
            renderer_base="torl_text",
            response_tokens=4096,
        ),
        Recipe(
            name="sft",
            about="ReTool's cold start (2504.11536, section 2.2): demonstrations with tool calls",
            tool="none",
            renderer="retool",
            renderer_base="retool_base",
            response_tokens=16384,
            problems_per_step=32,
            samples=1,
            updates_per_batch=1,
            is_sft=True,
        ),
    )
}
# What a CPU does in minutes, whatever the paper has.
CPU_RESPONSE_TOKENS = 256
CPU_PROBLEMS, CPU_SAMPLES = 4, 4
LORA_RATE = 10.0  # times a full update's learning rate (gin_configs/algos/lora.gin)


def recipe_named(name: str) -> Recipe:
    """Raises ValueError where there is no such recipe, with those that there are."""
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: there are {', '.join(RECIPES)}")
    return RECIPES[name]
