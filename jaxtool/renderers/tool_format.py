"""The [tool] table of a renderer: tags around a call, shape of an observation."""

import ast
import dataclasses
import re
from typing import Literal, get_args

ErrorStyle = Literal["last_line", "traceback"]

_FENCE = re.compile(r"(?:`{3,}|~{3,})[^\s`~]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """Tags around a call and the shape of an observation."""

    code_open: str
    code_close: str
    fence: str  # what demonstrations write; every spelling is read, also where this is ""
    observation: str
    max_output_chars: int
    error_style: ErrorStyle
    empty_output: str
    prelude: str = ""  # run before every program, in the same process; ledgers do not show it

    def __post_init__(self) -> None:
        for name in ("code_open", "code_close"):
            if not getattr(self, name).strip():
                raise ValueError(f"tool.{name} must not be empty: give a tag, such as <code>")
        if self.code_open == self.code_close:
            raise ValueError(
                f"tool.code_close = {self.code_close!r} must not be the opening tag: give two tags"
            )
        if self.fence and not _FENCE.fullmatch(self.fence):
            raise ValueError(
                f"tool.fence = {self.fence!r} must be three or more backticks or tildes and a word, "
                "such as ```python, or empty"
            )
        if "{output}" not in self.observation:
            raise ValueError(
                f"tool.observation = {self.observation!r} lacks {{output}}: write it where the "
                "output goes"
            )
        if self.max_output_chars < 1:
            raise ValueError(
                f"tool.max_output_chars = {self.max_output_chars} must be 1 or more: ReTool has 400"
            )
        if self.error_style not in get_args(ErrorStyle):
            raise ValueError(
                f"tool.error_style must be last_line or traceback, got {self.error_style!r}"
            )
        try:
            ast.parse(self.prelude)
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f"tool.prelude is no Python ({error}): every program would fail, mend it"
            ) from error

    def with_prelude(self, code: str) -> str:
        """What is run for the program `code`; the prelude ends in a newline, whether written or not."""
        return self.prelude + "\n" * (self.prelude[-1:] not in ("", "\n")) + code

    def fenced(self, program: str) -> str:
        """`program` as a demonstration writes it, between the code tags."""
        run = re.match(r"`+|~+", self.fence)
        lines = [program] if run is None else [self.fence, program, run.group()]
        return "\n".join([self.code_open, *lines, self.code_close])
