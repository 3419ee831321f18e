"""Records of answers written by hand."""

import dataclasses
import json
from collections.abc import Sequence

from jaxtool.rundir.answer_records import AnswerRecord, CallRecord, Part


def ran(code: str, status: str = "ok", *, error: str = "", tokens: int = 10) -> CallRecord:
    """A program; `answered` gives it its place."""
    return _call("python", {"code": code}, code, status, "", error, tokens)


def searched(query: str, passages: str = "", *, tokens: int = 10) -> CallRecord:
    """A query and what it gave."""
    return _call("search", {"query": query}, "", "ok", passages, "", tokens)


def answered(
    *calls: CallRecord,
    problem: str = "q1",
    sample: int = 0,
    is_correct: bool = True,
    words: Sequence[str] | None = None,
    end: str = "",
    final_tokens: int = 10,
    **fields,
) -> AnswerRecord:
    """An answer of segments `words[i]` + what is run, an observation of 5 tokens after each, and an end."""
    parts, placed, at = [], [], 0
    for index, call in enumerate(calls):
        said = (words[index] if words else "") + next(iter(json.loads(call.arguments).values()))
        tokens = call.stop
        placed.append(
            dataclasses.replace(call, start=at, stop=at + tokens, observation_stop=at + tokens + 5)
        )
        parts += [
            Part(author="policy", text=said, tokens=tokens),
            Part(author="tool", text=call.stdout, tokens=5),
        ]
        at += tokens + 5
    parts.append(Part(author="policy", text=end, tokens=final_tokens))
    plain = {
        "policy": "p",
        "has_tools": True,
        "max_tool_calls": 4,
        "sampling": "sampled",
        "level": "aime",
        "question": problem,
        "references": ("42",),
        "final_answer": "42" if is_correct else "41",
        "score": float(is_correct),
        "is_lenient": None,
        "how": "",
        "is_lost": False,
        "finish_reason": "answer",
        "prompt_tokens": 7,
        "policy_tokens": sum(p.tokens for p in parts if p.author == "policy"),
        "tool_tokens": 5 * len(calls),
        "unexecuted_calls": 0,
        "invalid_calls": 0,
    }
    return AnswerRecord(
        **(plain | fields),
        problem_id=problem,
        sample=sample,
        is_correct=is_correct,
        parts=tuple(parts),
        calls=tuple(placed),
    )


def _call(tool, arguments, code, status, stdout, error, tokens) -> CallRecord:
    return CallRecord(
        tool=tool,
        arguments=json.dumps(arguments),
        code=code,
        status=status,
        stdout=stdout,
        stderr="",
        last_value="",
        error_type=error,
        note="",
        is_truncated=False,
        cpu_ms=0,
        wall_ms=0,
        queue_ms=0,
        start=0,
        stop=tokens,
        observation_stop=tokens,
    )


TWO_LINES = "x = 6\n\n# times seven\nprint(7 * x)"
# Right with two programs (the first fails), right without, wrong with one that fails, wrong with one that runs; one lost.
CODE_ANSWERS = [
    answered(ran("1 / 0", "error"), ran(TWO_LINES), problem="a"),
    answered(problem="b", unexecuted_calls=1),
    answered(ran("while 1: pass", "cpu_limit"), problem="c", is_correct=False),
    answered(ran("print(41)"), problem="d", is_correct=False, unexecuted_calls=1),
    answered(ran("x"), ran("x"), problem="e", is_correct=False, is_lost=True),
]


def probed(problem, *rights):
    return [
        answered(problem=problem, sample=i, is_correct=right, has_tools=False, max_tool_calls=0)
        for i, right in enumerate(rights)
    ]


def asked(problem, *calls, is_correct=True):
    return [
        answered(*[ran("x")] * made, problem=problem, sample=i, is_correct=is_correct)
        for i, made in enumerate(calls)
    ]


# Solved without tools 4 of 4, 2 of 4 and 0 of 4 times; calls 1, 3 | 0, 2 | 2, 2.
WITHOUT = [
    *probed("known", True, True, True, True),
    *probed("half", True, False, True, False),
    *probed("hard", False, False, False, False),
]
WITH = [*asked("known", 1, 3), *asked("half", 0, 2), *asked("hard", 2, 2, is_correct=False)]
