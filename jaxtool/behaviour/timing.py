"""Where in a response its calls stand: ReTool's invocation timing, and what ToRL calls code before the answer.

Two clocks. In tokens, exact: a call is made where its last token stands, `stop` / tokens of the response. In
characters, as in ReTool's Figure 3: start position of the program / length of the response; it needs the text. 0 is the
beginning. Both count observations as part of the response.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence

from jaxtool.behaviour.answers import judged, mean, programs, queries, response_tokens, share
from jaxtool.rundir.answer_records import AnswerRecord, CallRecord, Part

# The policy has stated an answer: a box or an answer tag with something in it.
_STATED = re.compile(r"\\boxed\s*\{\s*[^}\s]|<answer>\s*[^<\s]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Of a program or query in the text of its response."""

    start: float  # characters before it / characters of the response
    is_before_answer: bool  # no answer was stated before it


def call_positions(record: AnswerRecord) -> list[float]:
    """stop / tokens of the response, of each call. A call that ends at token 30 of 120 stands at 0.25."""
    return [call.stop / response_tokens(record) for call in record.calls]


def first_call_position(records: Sequence[AnswerRecord]) -> float | None:
    """Mean position of the first call, over answers with one."""
    return mean([call_positions(record)[0] for record in judged(records) if record.calls])


def call_position(records: Sequence[AnswerRecord]) -> float | None:
    """Mean position of a call, over all calls."""
    return mean([at for record in judged(records) for at in call_positions(record)])


def places(record: AnswerRecord) -> list[Place | None]:
    """Of each program and query in the response; None where what was run is not in the text as it was run."""
    length = sum(len(part.text) for part in record.parts)
    asked = [(call, call.code) for call in programs(record)]
    asked += [(call, query) for query, call in queries(record)]
    return [_place(record, call, text, length) for call, text in sorted(asked, key=_first)]


def first_start(placed: Iterable[Sequence[Place | None]]) -> float | None:
    """Mean start of the first program or query (ReTool, Figure 3: code invocation timing), over answers that have one.

    Args:
      placed: `places` of each judged answer.
    """
    return mean([found[0].start for found in placed if found and found[0] is not None])


def before_answer_ratio(placed: Iterable[Sequence[Place | None]]) -> float | None:
    """Programs and queries before an answer was stated / those found in the text (ToRL: before-final-answer code).

    Args:
      placed: `places` of each judged answer.
    """
    each = [place.is_before_answer for found in placed for place in found if place is not None]
    return share(sum(each), len(each))


def _first(asked: tuple[CallRecord, str]) -> tuple[int, int]:
    return asked[0].start, asked[0].stop


def _place(record: AnswerRecord, call: CallRecord, text: str, length: int) -> Place | None:
    tokens = characters = 0
    said: list[Part] = []
    for part in record.parts:
        if part.author == "policy" and tokens <= call.start < tokens + part.tokens:
            at = _find(part.text, text)
            if at is None:
                return None
            stated = [*(earlier.text for earlier in said), part.text[:at]]
            return Place(
                start=(characters + at) / length,
                is_before_answer=not any(_STATED.search(words) for words in stated),
            )
        tokens, characters = tokens + part.tokens, characters + len(part.text)
        if part.author == "policy":
            said.append(part)
    return None


def _find(text: str, wanted: str) -> int | None:
    """Where the last `wanted` begins, as it is or as JSON writes it."""
    wanted = wanted.strip()
    forms = (wanted, json.dumps(wanted, ensure_ascii=False)[1:-1], json.dumps(wanted)[1:-1])
    found = max(text.rfind(form) for form in forms) if wanted else -1
    return None if found < 0 else found
