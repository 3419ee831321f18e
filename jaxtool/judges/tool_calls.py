"""Judges the calls that a response writes: names, parameters and values against reference calls.

ToolRL (2504.13958), section 3.3. For reference calls G and written calls P, matched one to one:

    S = |names(G) ∩ names(P)| / |names(G) ∪ names(P)|                 multisets
        + Σ over matched pairs ( |keys ∩| / |keys ∪| + number of keys with equal values )
    S_max = 1 + Σ over G ( 1 + number of its keys )

The score is S / S_max. A reference is a text in the response's format, or JSON: a call, or a list of
calls, each {"name": ..., "parameters" or "arguments": {...}}; an empty list says that no call is right.

Deviations from the public code: the matching is the best one, as in the paper, not a greedy one; true
is not 1; a response counts with all calls of all its tags. As there, only calls of one name match, and
a response with a call that cannot be read scores 0.
"""

import contextlib
import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxtool.core.calls import Call, InvalidCall
from jaxtool.core.types import Problem, Verdict
from jaxtool.formats.base import FORMATS
from jaxtool.formats.signatures import Signatures, read_json
from jaxtool.judges.base import RunPrograms
from jaxtool.judges.text_judges import PureJudge

# Section 5.3. "original": as above. "finegrained": names, and a call's keys, count only if all are equal.
# "intermediate": a call counts as a whole. "coarse": all calls count as a whole.
Granularity = Literal["original", "finegrained", "intermediate", "coarse"]

_ANY_TOOL = Signatures(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCalls:
    """Right is a response with the reference's calls and no others, in any order."""

    max_unfit: ClassVar[float] = 0.0
    runs_programs: ClassVar[bool] = False

    form: str = "toolrl"  # how calls are written: a name of `jaxtool.formats.base.FORMATS`
    granularity: Granularity = "original"

    def __post_init__(self) -> None:
        if self.form not in FORMATS:
            raise ValueError(f"ToolCalls.form={self.form!r} must be one of {', '.join(FORMATS)}")
        if self.granularity not in get_args(Granularity):
            raise ValueError(
                f"ToolCalls.granularity={self.granularity!r} must be one of "
                f"{', '.join(get_args(Granularity))}"
            )

    def unfit(self, problem: Problem) -> str | None:
        """What is wrong with a problem's references for this judge; None: nothing."""
        for reference in problem.references:
            try:
                expected_calls(reference)
            except ValueError as error:
                return f"are no calls: {error}"
        return None

    def open(
        self, run_programs: RunPrograms | None = None
    ) -> contextlib.AbstractContextManager[PureJudge]:
        del run_programs
        return contextlib.nullcontext(PureJudge(self.compare))

    def compare(self, answer: str, references: Sequence[str]) -> Verdict:
        """The verdict on a response, by the reference that suits it best.

        Args:
          answer: all that the policy wrote.
        """
        written = FORMATS[self.form].read_calls(answer, _ANY_TOOL)
        broken = next((call for call in written if isinstance(call, InvalidCall)), None)
        if broken is not None:
            return Verdict(score=0.0, is_correct=False, how=f"invalid call: {broken.reason}")
        calls = [call for call in written if isinstance(call, Call)]
        expected = [expected_calls(reference) for reference in references]
        score = max(match_score(wanted, calls, self.granularity) for wanted in expected)
        how = f"{len(calls)} of {len(expected[0])} calls written, matched {score:.2f}"
        return Verdict(score=score, is_correct=score == 1.0, how=how)


@functools.lru_cache(maxsize=4096)
def expected_calls(reference: str) -> tuple[Call, ...]:
    """The calls of a reference; none where it says that none is right.

    Raises:
      ValueError: it holds no calls that can be read, and does not say that there are none.
    """
    text = reference.strip()
    if text[:1] in ("[", "{"):
        try:
            value, end = read_json(text)
        except ValueError as error:
            raise ValueError(f"{text[:60]!r} is no JSON: {error}") from error
        if text[end:].strip():
            raise ValueError(f"behind the JSON stands {text[end:].strip()[:40]!r}")
        rows = value if isinstance(value, list) else [value]
        return tuple(_call_of(row) for row in rows)
    calls = FORMATS["toolrl"].read_calls(text, _ANY_TOOL)
    for call in calls:
        if isinstance(call, InvalidCall):
            raise ValueError(call.reason)
    if not calls and "<response>" not in text:
        raise ValueError(f"{text[:60]!r} holds neither <tool_call> nor <response>, nor is it JSON")
    return tuple(call for call in calls if isinstance(call, Call))


def match_score(
    expected: Sequence[Call], written: Sequence[Call], granularity: Granularity = "original"
) -> float:
    """S / S_max, 0 to 1. Without reference calls: 1 without calls, else 0."""
    if not expected:
        return float(not written)
    is_equal = len(expected) == len(written) and _pairs(expected, written, _whole) == len(expected)
    if is_equal or granularity == "coarse":
        return float(is_equal)
    names = _overlap([c.tool for c in expected], [c.tool for c in written])
    if granularity == "intermediate":
        return (names + _pairs(expected, written, _whole)) / (1 + len(expected))
    if granularity == "finegrained":
        names = float(names == 1.0)
        matched = _pairs(expected, written, _strict_parts)
    else:
        matched = _pairs(expected, written, _parts)
    return (names + matched) / (1 + sum(1 + len(call.arguments) for call in expected))


def _pairs(expected: Sequence[Call], written: Sequence[Call], worth: Any) -> float:
    """The largest sum over one-to-one matchings of calls with one name."""
    table = np.array(
        [[worth(e, w) if e.tool == w.tool else 0.0 for w in written] for e in expected]
    ).reshape(len(expected), len(written))
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum())


def _whole(expected: Call, written: Call) -> float:
    return float(_canonical(expected.arguments) == _canonical(written.arguments))


def _parts(expected: Call, written: Call) -> float:
    return _overlap(list(expected.arguments), list(written.arguments)) + _equal_values(
        expected.arguments, written.arguments
    )


def _strict_parts(expected: Call, written: Call) -> float:
    has_all = expected.arguments.keys() == written.arguments.keys()
    return float(has_all) + _equal_values(expected.arguments, written.arguments)


def _equal_values(expected: Mapping[str, Any], written: Mapping[str, Any]) -> float:
    return sum(
        1.0
        for key, value in expected.items()
        if key in written and _canonical(value) == _canonical(written[key])
    )


def _overlap(left: Sequence[str], right: Sequence[str]) -> float:
    """|∩| / |∪| of multisets; 1 for two empty ones."""
    both, either = Counter(left) & Counter(right), Counter(left) | Counter(right)
    return both.total() / either.total() if either else 1.0


def _canonical(value: Any) -> str:
    """JSON in which equal values are equal: 1 and 1.0 are, 1 and true are not."""
    return json.dumps(_with_floats(value), sort_keys=True)


def _with_floats(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53:
        return float(value)
    if isinstance(value, Mapping):
        return {key: _with_floats(part) for key, part in value.items()}
    return [_with_floats(part) for part in value] if isinstance(value, list | tuple) else value


def _call_of(row: object) -> Call:
    named = row if isinstance(row, dict) else {}
    arguments = named.get("parameters", named.get("arguments"))
    name = named.get("name")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise ValueError(
            f'{json.dumps(row)[:60]} is no call: write {{"name": ..., "parameters": {{...}}}}'
        )
    return Call(tool=name, arguments=arguments)
