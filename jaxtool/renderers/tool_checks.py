"""What renderer, tools and tokenizer must be to each other, asked before weights are read."""

import dataclasses

from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.prompt_tools import described
from jaxtool.renderers.renderer import Renderer


def check_tools(renderer: Renderer, tokenizer: Tokenizer) -> None:
    """Raises ValueError, in one line, if the prompt says nothing of the tools or results cannot be written.

    Args:
      renderer: with the run's tools (`Renderer.with_tools`).
    """
    renderer.tool_turn(tokenizer)  # raises where the template cannot write a result
    if renderer.tool is None or renderer.tool.form is None or not renderer.tools:
        return
    for spec in renderer.tools:
        control = tokenizer.control_tokens
        found = [control[i] for i in tokenizer.encode(described(spec)) if i in control]
        if found:
            raise ValueError(
                f"the description of tool {spec.name!r} holds {found[0]!r}, a control token of the "
                "tokenizer: write it otherwise"
            )
    text = renderer.prompt_text(tokenizer, "")
    without = dataclasses.replace(renderer, tools=()).prompt_text(tokenizer, "")
    if text == without or any(spec.name not in text for spec in renderer.tools):
        raise ValueError(
            f"the chat template describes no tools, and no message of renderer {renderer.name!r} does: "
            "write {tools} where they go"
        )
