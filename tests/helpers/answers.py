"""Answers of an evaluation without a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.answer_files import SAMPLED, Condition, EvaluationSettings, write_chunk
from jaxtool.rundir.answer_records import AnswerRecord, CallRecord, Part

CONDITION = Condition(sampling=SAMPLED, has_tools=True, max_tool_calls=2)


def call(**changed: Any) -> CallRecord:
    """A program that printed 2."""
    fields: dict[str, Any] = {
        "tool": "python",
        "arguments": '{"code": "print(2)"}',
        "code": "print(2)",
        "status": "ok",
        "stdout": "2\n",
        "is_truncated": False,
        "start": 0,
        "stop": 3,
        "observation_stop": 4,
    }
    fields |= dict.fromkeys(("stderr", "last_value", "error_type", "note"), "")
    fields |= dict.fromkeys(("cpu_ms", "wall_ms", "queue_ms"), 0)
    return CallRecord(**fields | changed)


def answer(
    policy: str = "base",
    question: int = 0,
    sample: int = 0,
    *,
    right: bool = False,
    calls: int = 0,
    **changed: Any,
) -> AnswerRecord:
    """A sampled answer with tools and a budget of 2 calls."""
    fields: dict[str, Any] = {
        "policy": policy,
        "has_tools": CONDITION.has_tools,
        "max_tool_calls": CONDITION.max_tool_calls,
        "sampling": CONDITION.sampling,
        "problem_id": f"q{question}",
        "level": "",
        "question": f"What is {question} + 1?",
        "references": (str(question + 1),),
        "sample": sample,
        "parts": (Part(author="policy", text="\\boxed{2}", tokens=4),),
        "final_answer": str(question + 1) if right else "0",
        "is_correct": right,
        "score": float(right),
        "is_lenient": None,
        "how": "numbers",
        "is_lost": False,
        "finish_reason": "eos",
        "prompt_tokens": 10,
        "policy_tokens": 4,
        "tool_tokens": calls,
        "unexecuted_calls": 0,
        "invalid_calls": 0,
        "calls": (call(),) * calls,
    }
    return AnswerRecord(**fields | changed)


def evaluation_settings(**changed: Any) -> EvaluationSettings:
    """Of one policy, `base`, one question and one sampled answer."""
    fields: dict[str, Any] = {
        "data": "Arithmetic",
        "questions": 1,
        "questions_hash": "0",
        "seed": 0,
        "samples": 1,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_response_tokens": 64,
        "conditions": (CONDITION,),
        "policies": {"base": "runs/base"},
        "judge": "Mathematics",
        "tools": ("python",),
        "renderer": "retool",
        "chunk_questions": 2,
        "max_lost_fraction": 0.01,
    }
    return EvaluationSettings(**fields | changed)


def write_evaluation(
    workdir: Path, records: Sequence[AnswerRecord], chunk_questions: int = 2, **changed: Any
) -> EvaluationSettings:
    """A finished work directory; every policy answers the same questions, under each condition as often."""
    questions = list(dict.fromkeys(record.problem_id for record in records))
    policies = list(dict.fromkeys(record.policy for record in records))
    conditions = tuple(dict.fromkeys(map(condition_of, records)))
    fields: dict[str, Any] = {
        "questions": len(questions),
        "samples": 1 + max(record.sample for record in records),
        "conditions": conditions,
        "policies": {name: f"runs/{name}" for name in policies},
        "chunk_questions": chunk_questions,
    }
    settings = evaluation_settings(**fields | changed)
    workdir.mkdir(parents=True, exist_ok=True)
    settings.write(workdir)
    for policy in policies:
        for condition in conditions:
            own = [r for r in records if r.policy == policy and condition_of(r) == condition]
            size = chunk_questions * condition.samples(settings.samples)
            for chunk in range(settings.chunks):
                part = own[chunk * size : (chunk + 1) * size]
                write_chunk(workdir, policy, condition, chunk, part)
    return settings


def condition_of(record: AnswerRecord) -> Condition:
    """That of an answer."""
    return Condition(
        sampling=record.sampling,
        has_tools=record.has_tools,
        max_tool_calls=record.max_tool_calls,
    )
