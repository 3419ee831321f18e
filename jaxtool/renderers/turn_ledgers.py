"""Conversations as ledgers where results are turns of the chat template: calls by name, Hermes and others.

Every assistant turn carries the loss, with the end token that ends it. What the template writes from there
to the next assistant turn has origin TOOL, whoever spoke. Not covered: conversations whose calls end in
tags (`ledgers`), structured calls (`structured_calls` makes text of them).
"""

import functools
from collections.abc import Sequence

from jaxtool.core.types import Origin
from jaxtool.data.plain_text import encode_between
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.conversations import Turn
from jaxtool.renderers.renderer import Renderer
from jaxtool.renderers.tool_turn import tool_turn

Piece = tuple[Sequence[int], Origin]


def turn_pieces(
    turns: Sequence[Turn], question: str, where: str, renderer: Renderer, tokenizer: Tokenizer
) -> list[Piece]:
    """Ids of the turns behind the first question, the last turn's end token left out.

    Raises:
      ValueError: a turn cannot be written; `where` and its key are named.
    """
    pieces: list[Piece] = []
    for number, turn in enumerate(turns):
        key = f"{where}: {turn.key}"
        if turn.role == "assistant":
            is_answered = number + 1 < len(turns) and turns[number + 1].role == "tool"
            if is_answered and renderer.reads_no_call(turn.text):
                raise ValueError(
                    f"{key} is answered by a tool, and the renderer {renderer.name!r} reads no call in it: "
                    "write the call in the renderer's form, or use another renderer"
                )
            pieces.append((tokenizer.encode(turn.text.rstrip()), Origin.POLICY))
        else:
            pieces += _between(turn, question, key, renderer, tokenizer)
    return pieces


def _between(
    turn: Turn, question: str, key: str, renderer: Renderer, tokenizer: Tokenizer
) -> list[Piece]:
    """The end token of the assistant's turn, and what the template writes up to its next one."""
    render = functools.partial(renderer.render_chat, tokenizer)
    assert renderer.tool is not None
    role = renderer.tool.role if turn.role == "tool" else turn.role
    try:
        written = tool_turn(render, renderer.chat(question), role)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    ids = encode_between(
        tokenizer, [written.before, written.after], written.written(turn.text.strip("\n"))
    )
    if not ids or ids[0] not in tokenizer.eos_ids:
        raise ValueError(
            f"{key}: the chat template puts no end token between the assistant's turn and this one: "
            "cut the row into several"
        )
    return [(ids[:1], Origin.POLICY), (ids[1:], Origin.TOOL)]
