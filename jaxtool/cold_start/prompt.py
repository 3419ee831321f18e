"""What the rewriting model is asked: a template file with a placeholder for each field, filled in one pass.

ReTool's figure 8 says what to ask for: keep the flow of thought with its failed attempts, put complete
programs with their outputs in place of calculation by hand, end with the tagged answer. The words are ours.
Not covered: what is made of the reply (`traces`).
"""

import dataclasses
import difflib
import re
from importlib import resources
from pathlib import Path

from jaxtool.cold_start.running import State
from jaxtool.cold_start.source_rows import SourceRow
from jaxtool.cold_start.traces import check_renderer, holds_outputs_in_text
from jaxtool.renderers.renderer import Renderer
from jaxtool.renderers.tool_format import TAGS

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_OF_THE_ROW = ("question", "reasoning", "answer")
_NEEDED = ("question", "reasoning")
_STATE_RULES: dict[State, str] = {
    "stateless": "Each program starts from nothing: it imports and defines all that it uses.",
    "session": "The programs of one solution run one after another and share their names.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewritePrompt:
    """A template whose fields of the renderer are filled, and those of the row are not."""

    text: str

    def of(self, row: SourceRow) -> str:
        """The prompt for a row; a placeholder inside a row's own text stays text."""
        fields = {"question": row.question, "reasoning": row.reasoning, "answer": row.answers[0]}
        return _PLACEHOLDER.sub(lambda found: fields[found[1]], self.text)


def load_prompt(path: Path | None, renderer: Renderer, state: State) -> RewritePrompt:
    """The template at `path`, or ours, for a renderer's tags.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a placeholder is unknown or missing, or the renderer has no outputs in text; one line.
    """
    tool = check_renderer(renderer)
    if tool.parser != TAGS or not holds_outputs_in_text(renderer):
        raise ValueError(
            f"renderer {renderer.name!r} has no tags around programs and outputs, in which a rewriter "
            'could write: use one with parser = "tags", such as retool'
        )
    if path is None:
        name = "prompts/rewrite.txt"
        text = (resources.files("jaxtool.cold_start") / name).read_text("utf-8")
    elif path.is_file():
        name, text = str(path), path.read_text("utf-8")
    else:
        raise FileNotFoundError(f"there is no prompt template {path}")
    fields = _fields_of(renderer, state)
    _check_placeholders(name, text, {*fields, *_OF_THE_ROW})
    filled = _PLACEHOLDER.sub(lambda found: fields.get(found[1], f"{{{{{found[1]}}}}}"), text)
    return RewritePrompt(text=filled)


def _fields_of(renderer: Renderer, state: State) -> dict[str, str]:
    tool, answer = check_renderer(renderer), renderer.answer
    inside = "\\boxed{result}" if answer.style == "boxed" else "result"
    tagged = f"{answer.open}{inside}{answer.close}" if renderer.answer_close else inside
    return {
        "call_example": tool.fenced("from math import comb\nprint(comb(10, 3))"),
        "output_example": tool.observation.replace("{output}", "120").strip(),
        "answer_example": tagged,
        "state_rule": _STATE_RULES[state],
        "max_output_chars": str(tool.max_output_chars),
    }


def _check_placeholders(name: str, text: str, known: set[str]) -> None:
    lines = [(m[1], text.count("\n", 0, m.start()) + 1) for m in _PLACEHOLDER.finditer(text)]
    for found, line in lines:
        if found not in known:
            near = difflib.get_close_matches(found, known, n=1)
            told = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ValueError(f"{name}:{line}: {{{{{found}}}}} is no placeholder: {told}")
    for needed in _NEEDED:
        if needed not in (found for found, _ in lines):
            raise ValueError(
                f"{name}: {{{{{needed}}}}} is missing: write it where the {needed} goes"
            )
