"""A written response, or a conversation of several turns, as a token ledger.

A span counts as the tool's only where a real rollout would put it: straight after a closing code tag.
An `<interpreter>` anywhere else was written by the author and stays in the loss.

Every turn of a conversation is kept. All assistant turns carry the loss, with the end token that ends
each but the last. The first user turn, and a system turn, are the prompt. Later user turns and tool
turns have origin TOOL: a ledger is one prompt and one response, and they came into the response from
outside, just as an observation does. So what reads ledgers (masks, shared prompts, the viewer) asks
only who wrote a token and where the response begins. What the renderer cannot write is refused by name.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from jaxtool.core.calls import PYTHON, Call
from jaxtool.core.types import FinishReason, Origin, Problem, Trajectory
from jaxtool.data.plain_text import encode_between
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.renderers.conversations import Conversation, Turn
from jaxtool.renderers.policy_text import Stop
from jaxtool.renderers.renderer import Renderer
from jaxtool.renderers.structured_calls import written
from jaxtool.renderers.turn_ledgers import turn_pieces

Piece = tuple[Sequence[int], Origin]


def demonstration(
    problem: Problem, response: str, *, renderer: Renderer, tokenizer: Tokenizer
) -> Trajectory:
    """A ledger of a written response: interpreter spans get origin TOOL, all else POLICY."""
    prompt = renderer.prompt_ids(tokenizer, problem)
    pieces = _encoded(split_response(response, renderer), renderer, tokenizer)
    return _ledger(problem, prompt, pieces, response, renderer=renderer, tokenizer=tokenizer)


def conversation_demonstration(
    conversation: Conversation, problem: Problem, *, renderer: Renderer, tokenizer: Tokenizer
) -> Trajectory:
    """A ledger of all turns of a conversation.

    Text that follows the closing answer tag of the last turn is dropped: no rollout would hold it.

    Args:
      problem: asks the conversation's first question.

    Raises:
      ValueError: the renderer cannot write a turn; file, line and key are named.
    """
    renderer = _with_tools(conversation, _with_system(conversation, renderer))
    first, *rest = [_with_call(turn, conversation, renderer) for turn in conversation.spoken]
    if renderer.ends_by_turn:
        prompt = renderer.prompt_ids(tokenizer, problem)
        pieces = turn_pieces(rest, problem.question, conversation.where, renderer, tokenizer)
        text = "".join(turn.text for turn in rest)
        return _ledger(problem, prompt, pieces, text, renderer=renderer, tokenizer=tokenizer)
    if conversation.turns[-1].call is not None:
        raise ValueError(
            f"{conversation.where}: {rest[-1].key} ends the row in a call, and a rollout of the renderer "
            f"{renderer.name!r} goes on behind one: its result and an answer are missing"
        )
    asked = Turn(role="user", text=problem.question, key=first.key)
    # The text so far, and the assistant's part of it since the last user turn.
    before, said = renderer.prompt_text(tokenizer, asked.text), renderer.response_prefix
    before = before.removesuffix(renderer.response_prefix)
    messages = [
        {"role": role, "content": content.replace("{question}", asked.text)}
        for role, content in renderer.messages
    ]
    pieces = []
    texts: list[str] = []
    for number, turn in enumerate(rest):
        where = f"{conversation.where}: {turn.key}"
        following = rest[number + 1].role if number + 1 < len(rest) else None
        if turn.role == "user":
            messages += [{"role": "assistant", "content": said}, _message(turn)]
            between = _between(before + said, messages, turn, where, renderer, tokenizer)
            pieces += between
            before, said = tokenizer.render_chat(messages), ""
            texts.append(turn.text)
            continue
        if turn.role == "tool":
            new = [(_observation(turn, where, renderer), Origin.TOOL)]
        else:
            text = _assistant_text(turn, following, where, renderer)
            new = split_response(text, renderer)
        pieces += _encoded(new, renderer, tokenizer)
        texts += [text for text, _ in new]
        said += "".join(text for text, _ in new)
    prompt = renderer.prompt_ids(tokenizer, problem)
    text = "".join(texts)
    return _ledger(problem, prompt, pieces, text, renderer=renderer, tokenizer=tokenizer)


def _ledger(
    problem: Problem,
    prompt: Sequence[int],
    pieces: Sequence[Piece],
    response: str,
    *,
    renderer: Renderer,
    tokenizer: Tokenizer,
) -> Trajectory:
    """With the end token, unless the response ends in the answer tag that ends a rollout."""
    ids, origins = list(prompt), [Origin.PROMPT] * len(prompt)
    is_answer = _ends_in_answer(response, renderer)
    last: list[Piece] = [] if is_answer else [(tokenizer.eos_ids[:1], Origin.POLICY)]
    for piece, origin in [*pieces, *last]:
        ids += piece
        origins += [origin] * len(piece)
    is_policy = np.asarray(origins) == Origin.POLICY
    return Trajectory(
        problem=problem,
        sample=0,
        ids=np.asarray(ids, np.int32),
        origins=np.asarray(origins, np.int8),
        behaviour_logprobs=np.zeros(len(ids), np.float32),
        policy_versions=np.where(is_policy, 0, -1).astype(np.int32),
        finish_reason=FinishReason.ANSWER if is_answer else FinishReason.EOS,
        response_text=response,
        final_text=response,
    )


def split_response(response: str, renderer: Renderer) -> list[tuple[str, Origin]]:
    """The response cut into (text, POLICY or TOOL) pieces that join to it exactly."""
    pieces: list[tuple[str, Origin]] = []
    at = 0
    while (span := _next_observation(response, at, renderer)) is not None:
        pieces.append((response[at : span[0]], Origin.POLICY))
        pieces.append((response[span[0] : span[1]], Origin.TOOL))
        at = span[1]
    pieces.append((response[at:], Origin.POLICY))
    return [(text, origin) for text, origin in pieces if text]


def _next_observation(response: str, at: int, renderer: Renderer) -> tuple[int, int] | None:
    """Where the next observation of `response` stands: straight after a call that a rollout would run."""
    if renderer.tool is None:
        return None
    for stop in _stops(response[at:], renderer, is_first=at == 0):
        tool = stop.call.tool if isinstance(stop.call, Call) else PYTHON
        opening, closing = map(re.escape, _tags_of(renderer.tool.observation_of(tool)))
        span = re.compile(rf"\s*{opening}.*?{closing}\s*", re.DOTALL)
        found = span.match(response, at + stop.end) if stop.kind == "call" else None
        if found is not None:
            return found.span()
    return None


def up_to_answer(response: str, renderer: Renderer) -> str:
    """The response without what follows the closing answer tag that ends it.

    Tags inside a program or an observation end nothing, nor does a tag without its opening.
    """
    at = 0
    for text, origin in split_response(response, renderer):
        if origin is Origin.POLICY:
            for stop in _stops(text, renderer, is_first=at == 0):
                if stop.kind == "answer":
                    return response[: at + stop.end]
        at += len(text)
    return response


def _ends_in_answer(response: str, renderer: Renderer) -> bool:
    """True if a rollout with this text would have ended with its last tag."""
    if not renderer.answer_close or not response.endswith(renderer.answer_close):
        return False
    text, origin = split_response(response, renderer)[-1]
    is_first = len(text) == len(response)
    ends = [s.end for s in _stops(text, renderer, is_first=is_first) if s.kind == "answer"]
    return origin is Origin.POLICY and len(text) in ends


def _stops(segment: str, renderer: Renderer, *, is_first: bool) -> Iterator[Stop]:
    reader = renderer.reader(is_first=is_first)
    reader.feed(segment.encode("utf-8", "replace"))
    while (stop := reader.next_stop()) is not None:
        yield stop


def _tags_of(observation: str) -> tuple[str, str]:
    opening, closing = observation.split("{output}")
    return opening.strip(), closing.strip()


def _encoded(
    texts: Sequence[tuple[str, Origin]], renderer: Renderer, tokenizer: Tokenizer
) -> list[Piece]:
    """Ids of each text; control tokens of an observation come from its tags alone, as in a rollout."""
    return [
        (
            tokenizer.encode(text)
            if origin is Origin.POLICY
            else encode_between(tokenizer, *_around_output(text, renderer)),
            origin,
        )
        for text, origin in texts
    ]


def _around_output(text: str, renderer: Renderer) -> tuple[Sequence[str], str]:
    """The tags of an observation with the blanks around them, and the output between them."""
    assert renderer.tool is not None
    for shape in renderer.tool.observations:
        opening, closing = map(re.escape, _tags_of(shape))
        found = re.fullmatch(rf"(\s*{opening})(.*?)({closing}\s*)", text, re.DOTALL)
        if found is not None:
            return (found[1], found[3]), found[2]
    return ("", ""), text


def _message(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.text}


def _with_system(conversation: Conversation, renderer: Renderer) -> Renderer:
    """The renderer with the conversation's system turn in front of its messages."""
    system = conversation.system
    own = dict(renderer.messages[:1]).get("system")
    if not system or system == own:
        return renderer
    if own is not None or not renderer.uses_chat_template or "{question}" in system:
        reason = (
            "has another one"
            if own is not None
            else "has no chat template"
            if not renderer.uses_chat_template
            else "would put the question into it"
        )
        raise ValueError(
            f"{conversation.where}: {conversation.turns[0].key} is a system turn, and the renderer "
            f"{renderer.name!r} {reason}: leave the turn out, or use a renderer that can write it"
        )
    return dataclasses.replace(renderer, messages=(("system", system), *renderer.messages))


def _with_tools(conversation: Conversation, renderer: Renderer) -> Renderer:
    """The renderer with the tools that the row names, where calls go by name: they stand in the prompt."""
    is_by_name = renderer.tool is not None and renderer.tool.form is not None
    if not conversation.tools or not is_by_name:
        return renderer
    return renderer.with_tools(conversation.tools)


def _with_call(turn: Turn, conversation: Conversation, renderer: Renderer) -> Turn:
    """The turn with its structured call, if it has one, as text."""
    if turn.call is None:
        return turn
    where = f"{conversation.where}: {turn.key}.tool_calls[0]"
    if conversation.tools and not renderer.tools:
        renderer = dataclasses.replace(renderer, tools=conversation.tools)
    return dataclasses.replace(turn, text=written(turn.text, turn.call, renderer, where), call=None)


def _assistant_text(turn: Turn, following: str | None, where: str, renderer: Renderer) -> str:
    """What of the turn is trained, blanks at the end of one that goes on elsewhere left out."""
    if following is None:
        return up_to_answer(turn.text, renderer)
    text = turn.text.rstrip()
    if following == "tool" and (renderer.tool is None or not text.endswith(renderer.tool.stops)):
        tag = (
            "no tool"
            if renderer.tool is None
            else f"calls that end in {' or '.join(renderer.tool.stops)}"
        )
        raise ValueError(
            f"{where} is answered by a tool, and the renderer {renderer.name!r} has {tag}: write the "
            "call in the renderer's tags, or use another renderer"
        )
    return text


def _observation(turn: Turn, where: str, renderer: Renderer) -> str:
    """The tool's text in the renderer's tags, once if the row has them too."""
    if renderer.tool is None:
        raise ValueError(
            f"{where} is a turn of a tool, and the renderer {renderer.name!r} has none"
        )
    text = turn.text.strip()
    for shape in renderer.tool.observations:
        opening, closing = _tags_of(shape)
        if opening and closing and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)]
            break
    return renderer.tool.observation.replace("{output}", text.strip("\n"))


def _between(
    before: str,
    messages: Sequence[dict[str, str]],
    turn: Turn,
    where: str,
    renderer: Renderer,
    tokenizer: Tokenizer,
) -> list[Piece]:
    """What the chat template writes from an assistant's last word to its next one, around a user turn.

    Its first token is the end token that the policy must write.
    """
    if not renderer.uses_chat_template:
        raise ValueError(
            f"{where} is a second turn of the user, and the renderer {renderer.name!r} has no chat "
            "template: it cannot write one"
        )
    whole = tokenizer.render_chat(messages)
    if not whole.startswith(before):
        raise ValueError(
            f"{where}: the chat template writes the turns before it in another way once this one is "
            "there: one ledger cannot hold both; cut the row into several"
        )
    ids = tokenizer.encode(whole[len(before) :])
    if not ids or ids[0] not in tokenizer.eos_ids:
        raise ValueError(
            f"{where}: the chat template puts no end token between the assistant's turn and this one: "
            "cut the row into several"
        )
    if any(not tokenizer.token_bytes(token) for token in tokenizer.encode(turn.text)):
        raise ValueError(
            f"{where}.content holds a control token of the tokenizer, which is no text of a user: "
            "spell it otherwise"
        )
    return [(ids[:1], Origin.POLICY), (ids[1:], Origin.TOOL)]
