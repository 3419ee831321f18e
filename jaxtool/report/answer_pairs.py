"""Two answers to one question side by side, as a page shows them. Every text is untrusted and stays text."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jaxtool.rundir.answer_records import AnswerRecord

MAX_CHARS = 2_000_000  # of all answers of a page's section: more makes the page slow to open
_MAX_PART = 20_000  # characters of one part; a longer one loses its middle


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerText:
    """One answer, in parts by who wrote them."""

    name: str  # of the policy
    is_correct: bool
    final_answer: str | None
    facts: tuple[str, ...]  # such as "2 calls", "310 tokens"
    parts: tuple[tuple[Literal["policy", "tool"], str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerPair:
    """The answers of two policies to one question."""

    title: str
    question: str
    references: tuple[str, ...]
    left: AnswerText
    right: AnswerText

    @property
    def chars(self) -> int:
        return sum(len(text) for one in (self.left, self.right) for _, text in one.parts)


def answer_text(record: AnswerRecord, name: str) -> AnswerText:
    """An answer as a page shows it; a very long part is cut in its middle, which is said there."""
    return AnswerText(
        name=name,
        is_correct=record.is_correct,
        final_answer=record.final_answer,
        facts=(
            _count(record.num_calls, "call"),
            f"{record.policy_tokens:,} tokens",
            f"ended by {record.finish_reason}",
            *((record.how,) if record.how else ()),
        ),
        parts=tuple((part.author, _cut(part.text)) for part in record.parts),
    )


def fitting(pairs: Sequence[AnswerPair], max_chars: int = MAX_CHARS) -> tuple[AnswerPair, ...]:
    """The first pairs, as many as stay within `max_chars`; one at least, if there is one."""
    kept: list[AnswerPair] = []
    chars = 0
    for pair in pairs:
        chars += pair.chars
        if kept and chars > max_chars:
            break
        kept.append(pair)
    return tuple(kept)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cut(text: str) -> str:
    if len(text) <= _MAX_PART:
        return text
    half = _MAX_PART // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half:,} characters ...]\n{text[-half:]}"
