"""Answers for pages: a record and a line of a trajectory log, to be changed where a test wants."""

from typing import Any

from jaxtool.rundir.answer_records import AnswerRecord, CallRecord, Part, Span

CODE = "x = 6 * 7\nprint(x)\n"


def make_call(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "tool": "python",
        "arguments": '{"code": "x = 6 * 7\\nprint(x)\\n"}',
        "code": CODE,
        "status": "ok",
        "stdout": "42\n",
        "stderr": "",
        "last_value": "",
        "error_type": "",
        "note": "",
        "is_truncated": False,
        "cpu_ms": 3,
        "wall_ms": 12,
        "queue_ms": 1,
        "start": 0,
        "stop": 15,
        "observation_stop": 19,
    }
    return CallRecord(**values | changes)


def make_record(**changes: Any) -> AnswerRecord:
    """An answer of one call: thought, code, output, answer."""
    values: dict[str, Any] = {
        "policy": "base",
        "has_tools": True,
        "max_tool_calls": 4,
        "sampling": "sampled",
        "problem_id": "q1",
        "level": "easy",
        "question": "What is 6 * 7?",
        "references": ("42",),
        "sample": 0,
        "parts": (
            Part(author="policy", text=f"Let me compute. <code>{CODE}</code>", tokens=15),
            Part(author="tool", text="<output>42\n</output>", tokens=4),
            Part(author="policy", text="It is \\boxed{42}.", tokens=5),
        ),
        "final_answer": "42",
        "is_correct": True,
        "score": 1.0,
        "is_lenient": None,
        "how": "numbers",
        "is_lost": False,
        "finish_reason": "eos",
        "prompt_tokens": 30,
        "policy_tokens": 20,
        "tool_tokens": 4,
        "unexecuted_calls": 0,
        "invalid_calls": 0,
        "calls": (make_call(),),
        "spans": (
            Span(kind="generate", start_ms=0, stop_ms=300),
            Span(kind="tool", start_ms=300, stop_ms=320),
            Span(kind="generate", start_ms=320, stop_ms=400),
            Span(kind="judge", start_ms=500, stop_ms=510),
        ),
    }
    return AnswerRecord(**values | changes)


def two_call_line(**changes: Any) -> dict[str, Any]:
    """A line of a log with two calls; between the second one's code and its output stands a closing tag."""
    pieces = ["Q", "<end>", "I ", "x=1", "</c>", "1", "so ", "y", "!", "2", " é😀"]
    call = {"status": "ok", "error_type": "", "wall_ms": 5, "tool": "python"}
    calls = [
        call | {"start": 2, "stop": 5, "observation_stop": 6},
        call | {"start": 6, "stop": 9, "observation_stop": 10, "status": "error"},
    ]
    row = {
        "variant": "grpo",
        "step": 3,
        "problem_id": "p",
        "level": "",
        "question": "?",
        "reference_answer": "1",
        "sample": 2,
        "reward": 0.5,
        "is_correct": True,
        "tool_calls": calls,
        "tool_coefficient": 1.0,
        "finish_reason": "length",
        "advantage": 0.25,
        "tokens": {
            "text": pieces,
            "id": list(range(11)),
            "origin": "ppacatacata",
            "control": [1],
            "logprob": [None] * 11,
            "advantage": [0.25 if letter in "ac" else None for letter in "ppacatacata"],
        },
    }
    return row | changes
