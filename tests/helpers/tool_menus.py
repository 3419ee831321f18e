"""Tools and chat templates for tests of calls by name."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.scripted_engine import ScriptedEngine
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.core.calls import ToolSpec
from jaxtool.core.types import Problem, ToolResult, ToolStatus, Trajectory, trajectories_of
from jaxtool.data.hf_tokenizer import HfTokenizer, tokenizer_from_dir
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.renderer import Renderer, stop_token_mask
from jaxtool.rollout.collector import Collector, RolloutConfig
from jaxtool.tools.base import SharedSession
from jaxtool.tools.menu import Menu

WEATHER = ToolSpec(
    name="weather",
    description="Weather of a city, today.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)
ADD = ToolSpec(
    name="add",
    description="Adds two numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    },
)
# Templates of our own in the manner of Hermes, and of Llama 3.1 (a role for results, which are JSON).
HERMES_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nYour tools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n\n"
    "{% if loop.first and tools %}Tools: {{ tools | tojson }}\n\n{% endif %}"
    "{% if m.role == 'ipython' %}{{ m.content | tojson }}"
    "{% elif m.tool_calls %}{{ m.tool_calls[0].function | tojson }}"
    "{% else %}{{ m.content | trim }}{% endif %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)


class FakeTool:
    """Answers every call with one text, or by a function of the arguments."""

    def __init__(self, spec: ToolSpec, says: str = "4 °C"):
        self.spec = spec
        self.calls: list[dict[str, Any]] = []
        self._says = says

    async def open(self, problem: Problem, key: str) -> SharedSession:
        del problem, key
        return SharedSession(self._call)

    async def close(self) -> None:
        return None

    async def _call(self, arguments: Mapping[str, Any]) -> ToolResult:
        self.calls.append(dict(arguments))
        return ToolResult(status=ToolStatus.OK, stdout=self._says)


def chat_tokenizer(path: Path, template: str) -> HfTokenizer:
    """A byte-level tokenizer with three control tokens and this chat template."""
    write_byte_level(path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return tokenizer_from_dir(path)


def rollout(
    renderer: Renderer,
    tokenizer: HfTokenizer,
    tools: Sequence[FakeTool],
    script: Sequence[int],
    **budgets: Any,
) -> tuple[Trajectory, ScriptedEngine]:
    """One trajectory of a policy that writes the ids of `script`."""
    problem = Problem(problem_id="p", question="How cold is Oslo?", answer="4")
    prompt = tuple(renderer.prompt_ids(tokenizer, problem))
    stops = stop_token_mask(tokenizer, renderer.stop_tags)
    engine = ScriptedEngine({prompt: [list(script)]}, is_stop=stops, max_tokens=4096)
    collector = Collector(
        engine=engine,  # pyright: ignore[reportArgumentType]
        tokenizer=tokenizer,
        renderer=renderer,
        tools=Menu(tools),
        config=RolloutConfig(max_response_tokens=2000, **budgets),
    )
    groups = asyncio.run(
        collector.collect(
            [problem], samples=1, sampling=Sampling(), seed=0, stream=("test", 0), version=3
        )
    )
    (trajectory,) = trajectories_of(groups)
    trajectory.check()
    return trajectory, engine
