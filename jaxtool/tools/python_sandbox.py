"""The sandbox's Python in a menu: a stateless code tool on the servers of `RlConfig.sandbox`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxtool.core.calls import ToolSpec
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.code_tool import PYTHON_SPEC, CodeTool


@dataclasses.dataclass(frozen=True, kw_only=True)
class PythonSandbox:
    """Called as `python`. Limits of a program are those of SandboxClientConfig."""

    description: str = PYTHON_SPEC.description  # for the prompt
    max_observation_tokens: int | None = None  # head kept; None: the renderer's max_output_chars

    @property
    def uses_sandbox(self) -> bool:
        return True

    @property
    def spec(self) -> ToolSpec:
        return dataclasses.replace(
            PYTHON_SPEC,
            description=self.description,
            max_observation_tokens=self.max_observation_tokens,
        )

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        """None here: the servers have a preflight of their own."""
        return []

    def open(self, runner: CodeRunner | None = None) -> CodeTool:
        if runner is None:
            raise ValueError("PythonSandbox needs a sandbox, and none was opened")
        return CodeTool(runner, self.spec)
