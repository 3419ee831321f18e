"""The formats by name, as a renderer's file and a judge choose them."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.formats import hermes, llama3_1, qwen3_coder, react, toolrl
from jaxtool.formats.signatures import Signatures

Reader = Callable[[str, Signatures], tuple[Call | InvalidCall, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallFormat:
    """How calls are written in a turn."""

    read_calls: Reader
    write_call: Callable[[Call], str]
    marks: tuple[str, ...]  # texts that a tokenizer must be able to write
    behind_text: str | None  # between a text and a call in one turn; None: a turn is one of the two
    stop: str = ""  # the policy begins the observation with it; "": its end token ends a turn


FORMATS: Mapping[str, CallFormat] = {
    "hermes": CallFormat(
        read_calls=hermes.read_calls,
        write_call=hermes.write_call,
        marks=(hermes.OPEN, hermes.CLOSE),
        behind_text="\n",
    ),
    "qwen3_coder": CallFormat(
        read_calls=qwen3_coder.read_calls,
        write_call=qwen3_coder.write_call,
        marks=(qwen3_coder.OPEN, qwen3_coder.CLOSE, "<function=", "<parameter=", "</parameter>"),
        behind_text="\n\n",
    ),
    "llama3_1": CallFormat(
        read_calls=llama3_1.read_calls,
        write_call=llama3_1.write_call,
        marks=('{"name": "',),
        behind_text=None,
    ),
    "react": CallFormat(
        read_calls=react.read_calls,
        write_call=react.write_call,
        marks=("Action:", "Action Input:", react.STOP, "Final Answer:"),
        behind_text="\n",
        stop=react.STOP,
    ),
    "toolrl": CallFormat(
        read_calls=toolrl.read_calls,
        write_call=toolrl.write_call,
        marks=(toolrl.OPEN, toolrl.CLOSE),
        behind_text="\n",
    ),
}
