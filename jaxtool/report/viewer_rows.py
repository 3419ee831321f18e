"""Answers as the viewer reads them, from a line of a trajectory log or from a record of an evaluation.

Each answer is three parts. Its head is in the page: what lists, filters and sorting need. Its body is text, and its
figures are what is known of each token; both are in chunks that the page loads when they are looked at. Positions
inside a text count UTF-16 units, as JavaScript does.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxtool.rundir.answer_records import AnswerRecord, CallRecord

MAX_SPANS = 24  # of a row's time line: more are narrower than a pixel
MAX_SHOWN_ANSWER = 120  # characters of the answer given that the page itself holds
_SPAN_LETTERS = {"generate": "g", "tool": "t", "judge": "j"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewerRow:
    """One answer."""

    head: dict[str, Any]
    # problem, question, references; the same for all answers of a question
    question: tuple[str, str, tuple[str, ...]]
    body: dict[str, Any]
    figures: dict[str, Any] | None = None  # None: nothing is known of single tokens


def row_of_view(row: Mapping[str, Any]) -> ViewerRow:
    """The answer in a line of trajectories.jsonl (`trajectory_log.view_to_row`), of earlier versions too."""
    tokens, calls = row["tokens"], row["tool_calls"]
    letters, texts = tokens["origin"], tokens["text"]
    advantages = tokens["advantage"]
    parts = list(_parts_of_tokens(letters, texts, set(tokens.get("control", ())), calls))
    is_masked = row.get("is_masked", False)
    head = _head(
        variant=row["variant"],
        condition="",
        step=row["step"],
        level=row["level"],
        sample=row["sample"],
        right=row["is_correct"] and not is_masked,
        lost=is_masked,
        reward=row["reward"],
        advantage=row["advantage"],
        coefficient=row["tool_coefficient"],
        calls=[(call["tool"], call["status"]) for call in calls],
        invalid=row.get("invalid_calls", 0),
        unexecuted=row.get("unexecuted_calls", 0),
        prompt_tokens=letters.count("p"),
        policy_tokens=letters.count("a") + letters.count("c"),
        tool_tokens=letters.count("t"),
        finish=row["finish_reason"],
        given=row.get("final_answer"),
        spans=row.get("spans", ()),
        tool_ms=sum(call["wall_ms"] for call in calls),
    )
    shown = [_call(call, error=call["error_type"], ms=call["wall_ms"]) for call in calls]
    references = tuple(row.get("references", ())) or (row["reference_answer"],)
    return ViewerRow(
        head=head,
        question=(row["problem_id"], row["question"], references),
        body=_body(
            head, parts, shown, row.get("final_answer"), row.get("how", ""), row.get("spans", ())
        ),
        figures={
            "n": [utf16_length(text) for text in texts],
            "id": tokens["id"],
            "logprob": tokens["logprob"],
            "advantage": _same_for_all(advantages),
        },
    )


def row_of_record(record: AnswerRecord) -> ViewerRow:
    """The answer in a record of an evaluation: text by author, nothing of single tokens."""
    tools = f"{record.max_tool_calls} calls" if record.has_tools else "no tools"
    spans = [dataclasses.asdict(span) for span in record.spans]
    head = _head(
        variant=record.policy,
        condition=f"{record.sampling}, {tools}",
        step=None,
        level=record.level,
        sample=record.sample,
        right=record.is_correct,
        lost=record.is_lost,
        reward=None,
        advantage=None,
        coefficient=None,
        calls=[(call.tool, call.status) for call in record.calls],
        invalid=record.invalid_calls,
        unexecuted=record.unexecuted_calls,
        prompt_tokens=record.prompt_tokens,
        policy_tokens=record.policy_tokens,
        tool_tokens=record.tool_tokens,
        finish=record.finish_reason,
        given=record.final_answer,
        spans=spans,
        tool_ms=sum(call.wall_ms for call in record.calls),
    )
    calls = [
        _call(dataclasses.asdict(call), error=call.error_type, ms=call.wall_ms)
        for call in record.calls
    ]
    return ViewerRow(
        head=head,
        question=(record.problem_id, record.question, record.references),
        body=_body(
            head, list(_parts_of_record(record)), calls, record.final_answer, record.how, spans
        ),
    )


def _head(
    *,
    calls: Sequence[tuple[str, str]],
    spans: Sequence[Mapping[str, Any]],
    given: str | None,
    **rest: Any,
) -> dict[str, Any]:
    short = None if given is None else shortened(given, MAX_SHOWN_ANSWER)
    return {
        **rest,
        "given": short,
        "calls": len(calls),
        "failed": sum(status != "ok" for _, status in calls),
        "tools": " + ".join(sorted({tool for tool, _ in calls if tool})),
        "ms": max((span["stop_ms"] for span in spans), default=None),
        "spans": _short_spans(spans),
    }


def shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _short_spans(spans: Sequence[Mapping[str, Any]]) -> str:
    """`g0-120 t120-180`: kind, start and stop; of many spans those that are long."""
    if len(spans) > MAX_SPANS:
        longest = sorted(spans, key=lambda span: span["start_ms"] - span["stop_ms"])[:MAX_SPANS]
        spans = sorted(longest, key=lambda span: span["start_ms"])
    return " ".join(
        f"{_SPAN_LETTERS[span['kind']]}{span['start_ms']}-{span['stop_ms']}" for span in spans
    )


def _body(
    head: Mapping[str, Any],
    parts: list[dict[str, Any]],
    calls: list[dict[str, Any]],
    given: str | None,
    how: str,
    spans: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    body: dict[str, Any] = {"parts": parts, "calls": calls, "how": how}
    if given != head["given"]:
        body["given"] = given
    if len(spans) > MAX_SPANS:
        body["spans"] = [[_SPAN_LETTERS[s["kind"]], s["start_ms"], s["stop_ms"]] for s in spans]
    return body


def _call(call: Mapping[str, Any], *, error: str, ms: int) -> dict[str, Any]:
    found = {"tool": call["tool"], "status": call["status"], "error": error, "ms": ms}
    extra = {
        name: call[name]
        for name in ("queue_ms", "cpu_ms", "note", "is_truncated")
        if call.get(name)
    }
    return found | extra


def _parts_of_tokens(
    letters: str, texts: Sequence[str], control: set[int], calls: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Runs of tokens of one origin; those of a call, from its first token of code to its observation, name it."""
    owners = list(_owners(letters, calls))
    for (letter, owner), run in itertools.groupby(
        range(len(letters)), key=lambda t: (letters[t], owners[t])
    ):
        places = list(run)
        marks, at = [], 0
        for t in places:
            length = utf16_length(texts[t])
            if t in control:
                marks.append([at, length])
            at += length
        yield _part(letter, "".join(texts[t] for t in places), len(places), owner, marks)


def _owners(letters: str, calls: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """The call of each token, -1 of a token of none."""
    if all(call.get("start", -1) >= 0 for call in calls):
        at = 0
        for number, call in enumerate(calls):
            first = letters.find("c", call["start"], call["stop"])
            first = call["stop"] if first < 0 else first
            yield from itertools.repeat(-1, first - at)
            yield from itertools.repeat(number, call["observation_stop"] - first)
            at = call["observation_stop"]
        yield from itertools.repeat(-1, len(letters) - at)
        return
    # An earlier version's log: a call begins with its code and ends with the tool's text behind it.
    number, owner = -1, -1
    for before, letter in itertools.pairwise(f"p{letters}"):
        if letter == "c" and owner < 0:
            number += 1
            owner = number
        elif before == "t" and letter != "t":
            owner = -1
        yield owner if owner < len(calls) else -1


def _parts_of_record(record: AnswerRecord) -> Iterator[dict[str, Any]]:
    by_stop = {call.stop: number for number, call in enumerate(record.calls)}
    observed: dict[int, int] = {}
    at = 0
    for part in record.parts:
        at += part.tokens
        if part.author == "tool":
            number = observed.get(at - part.tokens, -1)
            yield _part("t", part.text, part.tokens, number)
            continue
        number = by_stop.get(at, -1)
        if number < 0:
            yield _part("a", part.text, part.tokens)
            continue
        observed[at] = number
        first, stop = _where(record.calls[number], part.text)
        pieces = (("a", 0, first, -1), ("c", first, stop, number), ("a", stop, None, number))
        for letter, begin, end, owner in pieces:
            if text := part.text[begin:end]:
                # How many of the part's tokens a piece has is not known.
                yield _part(letter, text, part.tokens if text == part.text else None, owner)


def _where(call: CallRecord, text: str) -> tuple[int, int]:
    """Where the arguments of the call stand in the text of its segment; all of it where they are not found."""
    values = [call.code] if call.code.strip() else _strings(call.arguments)
    places = [(text.rfind(value.strip()), len(value.strip())) for value in values if value.strip()]
    if not places or any(first < 0 for first, _ in places):
        return 0, len(text)
    return min(first for first, _ in places), max(first + length for first, length in places)


def _strings(arguments: str) -> list[str]:
    try:
        values = json.loads(arguments)
    except ValueError:
        return []
    return [v for v in values.values() if isinstance(v, str)] if isinstance(values, dict) else []


def _part(
    letter: str, text: str, tokens: int | None, call: int = -1, marks: Sequence[Sequence[int]] = ()
) -> dict[str, Any]:
    """`k` who wrote it (p, a, c, t), `x` the text, `n` its tokens, `c` its call, `m` control tokens in it."""
    part: dict[str, Any] = {"k": letter, "x": text}
    if tokens is not None:
        part["n"] = tokens
    if call >= 0:
        part["c"] = call
    if marks:
        part["m"] = list(marks)
    return part


def _same_for_all(values: Sequence[float | None]) -> float | list[float | None] | None:
    """The one value of all tokens that have one, or the list."""
    known = {value for value in values if value is not None}
    if len(known) > 1:
        return list(values)
    return next(iter(known), None)


def utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text) + sum(char > "\uffff" for char in text)
