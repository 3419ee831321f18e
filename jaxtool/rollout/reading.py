"""How a renderer reads a written response: the tokens and who wrote them, calls, observations, the answer.

For a person who writes a renderer (`experiments.render`); a rollout does the same with a policy. The rest
of the text is what the policy writes after each observation. Not covered: budgets, rules for invalid calls
(each is observed), judging.
"""

import dataclasses
import itertools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jaxtool.core.calls import PYTHON, Call, InvalidCall
from jaxtool.core.types import Origin, Problem, ToolResult, ToolStatus
from jaxtool.data.tokenizer import Tokenizer, decode, written_bytes
from jaxtool.renderers.policy_text import Stop
from jaxtool.renderers.renderer import Renderer, observation_ids

RunCall = Callable[[Call], Awaitable[ToolResult]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Tokens of one origin."""

    origin: Origin
    ids: tuple[int, ...]

    def as_json(self, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        control = tokenizer.control_tokens
        return [
            {
                "id": token_id,
                "text": control.get(token_id) or decode(tokenizer, [token_id]),
                "origin": self.origin.name.lower(),
                "is_control": token_id in control,
            }
            for token_id in self.ids
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadCall:
    """A call as it was read, and what the policy reads of it."""

    call: Call | InvalidCall | None  # None: there was nothing to run
    observation: str = ""
    unread: int = 0  # further calls of the same turn

    def as_json(self) -> dict[str, Any]:
        if isinstance(self.call, Call):
            said = {"tool": self.call.tool, "arguments": dict(self.call.arguments)}
        elif isinstance(self.call, InvalidCall):
            said = {"tool": self.call.tool, "invalid": self.call.reason}
        else:
            said = {"tool": "", "invalid": "nothing to run"}
        return said | {"observation": self.observation, "unread": self.unread}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """A response as it was read."""

    runs: tuple[Run, ...]  # the prompt first
    calls: tuple[ReadCall, ...]
    end: str  # "answer", "end token", "open": the response goes on
    final_text: str  # of the policy, behind the last observation
    answer: str | None
    left_over: str  # text behind the end, which nobody reads


async def read_response(
    response: str, problem: Problem, renderer: Renderer, tokenizer: Tokenizer, run_call: RunCall
) -> Reading:
    """Reads `response` as a rollout would read a policy that writes it.

    Args:
      response: with its end tokens spelled out where turns end; without one at its end where a turn ends
        a call, one is added.
      run_call: what a call results in.
    """
    runs = [Run(origin=Origin.PROMPT, ids=tuple(renderer.prompt_ids(tokenizer, problem)))]
    turns = _turns(response, renderer, tokenizer)
    calls: list[ReadCall] = []
    reader, segment, end = renderer.reader(is_first=True), [], "open"
    while turns and end == "open":
        segment.append(turns[0].pop(0))
        turns = turns if turns[0] else turns[1:]
        is_end_token = segment[-1] in tokenizer.eos_ids
        reader.feed(written_bytes(tokenizer, segment[-1]))
        stop = reader.next_stop(is_end=is_end_token and renderer.ends_by_turn)
        if stop is None or stop.kind == "answer" or (is_end_token and not renderer.ends_by_turn):
            end = (
                "answer" if stop and stop.kind == "answer" else "end token" if is_end_token else end
            )
            continue
        text = decode(tokenizer, segment)
        if (
            turns and text[stop.end :]
        ):  # the file's text went on inside the token; a policy's would not
            rest = turns[0]
            ends = [i for i in rest[-1:] if i in tokenizer.eos_ids]
            segment = tokenizer.encode(text[: stop.end])
            behind = text[stop.end :] + decode(tokenizer, rest)
            turns[0] = [*tokenizer.encode(behind), *ends]
        read, ids = await _observed(stop, renderer, tokenizer, run_call)
        calls.append(read)
        runs.append(Run(origin=Origin.POLICY, ids=tuple(segment)))
        if ids:
            runs.append(Run(origin=Origin.TOOL, ids=tuple(ids)))
        reader, segment = renderer.reader(), []
    if segment:
        runs.append(Run(origin=Origin.POLICY, ids=tuple(segment)))
    final_text = decode(tokenizer, segment)
    prefix = "" if calls else renderer.response_prefix
    return Reading(
        runs=tuple(runs),
        calls=tuple(calls),
        end=end,
        final_text=final_text,
        answer=renderer.answer.extract(prefix + final_text),
        left_over="".join(decode(tokenizer, turn) for turn in turns),
    )


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Text of `ids` with control tokens spelled out."""
    runs = itertools.groupby(ids, key=lambda token_id: token_id in tokenizer.control_tokens)
    return "".join(
        "".join(tokenizer.control_tokens[i] for i in run)
        if is_control
        else decode(tokenizer, [*run])
        for is_control, run in runs
    )


def _turns(response: str, renderer: Renderer, tokenizer: Tokenizer) -> list[list[int]]:
    """Ids of each turn with its end token; line ends around the tokens are the file's."""
    control = tokenizer.control_tokens
    ends = {control[i]: i for i in tokenizer.eos_ids if i in control}
    pattern = re.compile("(" + "|".join(map(re.escape, ends)) + ")" if ends else r"(?!)")
    turns: list[list[int]] = [[]]
    for part in pattern.split(response.removesuffix("\n")):
        if part in ends:
            turns[-1].append(ends[part])
            turns.append([])
        else:
            text = part.removeprefix("\n") if len(turns) > 1 else part
            turns[-1] += tokenizer.encode(text) if text else []
    turns = [turn for turn in turns if turn]
    if turns and renderer.ends_by_turn and turns[-1][-1] not in tokenizer.eos_ids:
        turns[-1].append(tokenizer.eos_ids[0])
    return turns


async def _observed(
    stop: Stop, renderer: Renderer, tokenizer: Tokenizer, run_call: RunCall
) -> tuple[ReadCall, Sequence[int]]:
    """The call with its observation, whose ids follow it in a ledger."""
    if stop.call is None:
        return ReadCall(call=None, unread=stop.unread), ()
    if isinstance(stop.call, InvalidCall):
        told = f"Invalid call: {stop.call.reason}"
        result, tool = ToolResult(status=ToolStatus.OK, stdout=told), PYTHON
    else:
        result, tool = await run_call(stop.call), stop.call.tool
    ids = observation_ids(tokenizer, result, renderer, tool)
    read = ReadCall(call=stop.call, observation=spelled(tokenizer, ids), unread=stop.unread)
    return read, ids
