"""A tool call as data: what a policy asks for, what a tool says of itself, what is no call.

Plain Python; knows no text format (renderers read and write those) and no tool's inside.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

PYTHON = "python"  # name of the code tool where nobody chooses another
CODE = "code"  # its one argument


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """What the policy and the run are told of a tool."""

    name: str  # unique in a run; as the policy writes it
    description: str  # for the prompt, in the tool's own words
    parameters: Mapping[
        str, Any
    ]  # JSON schema of the arguments: {"type": "object", "properties": ...}
    deadline_s: float = 60.0  # a call that takes longer ends there and is an error observation
    max_concurrency: int = 64  # calls at a time; the others wait, and their deadline does not run
    max_observation_tokens: int | None = None  # its head is kept; None: the renderer's own limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """A call that can be made: Call(tool="python", arguments={"code": "print(6 * 7)"})."""

    tool: str
    arguments: Mapping[str, Any]  # JSON values by name

    @classmethod
    def python(cls, code: str) -> "Call":
        """The program `code` for the code tool."""
        return cls(tool=PYTHON, arguments={CODE: code})


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvalidCall:
    """Text in a call's place that is no call: bad JSON, a tool that there is not, a missing argument."""

    reason: str  # one sentence that the policy may read
    tool: str = ""  # the name that it wrote, if it wrote one
