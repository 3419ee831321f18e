"""How a policy searches: queries in place of programs.

Search-R1 (2503.09516) and OTC-PO (2504.14870, Table 1) count searches. The rest is ours. Texts are compared as SQuAD's
evaluation compares them (1606.05250, section 6.1): lower case, without punctuation and articles.

An answer that stands in a passage was not necessarily taken from there. Short references stand in passages by chance,
yes and no nearly always: those are left out of `support`.
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.behaviour.answers import judged, mean, queries, share
from jaxtool.judges.word_match import normalized
from jaxtool.rundir.answer_records import AnswerRecord

_CHANCE = frozenset(("yes", "no", "true", "false"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the searches of one answer gave."""

    is_correct: bool
    queries: int
    empty: int  # queries that gave no passage
    found: (
        bool | None
    )  # a reference stands in the passages; None: no search, or the references are yes and no
    is_grounded: bool | None  # the final answer stands in the passages; None as `found`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Support:
    """Whether an acceptable answer stood in what the searches of an answer gave; over answers that searched."""

    answers: int  # with a search and a reference that is not yes or no
    found: float | None  # share in whose passages a reference stands
    right_if_found: float | None  # accuracy of these: how well passages are read
    right_if_not_found: float | None  # accuracy of the others: known by heart, or guessed
    grounded: float | None  # share whose final answer stands in the passages


def queries_per_answer(records: Sequence[AnswerRecord]) -> float | None:
    """Σ queries / answers."""
    return mean([float(len(queries(record))) for record in judged(records)])


def search_ratio(records: Sequence[AnswerRecord]) -> float | None:
    """Answers with a query / answers."""
    return mean([float(bool(queries(record))) for record in judged(records)])


def words_per_query(records: Sequence[AnswerRecord]) -> float | None:
    """Mean words of a query, parted by blanks."""
    each = [query for record in judged(records) for query, _ in queries(record)]
    return mean([float(len(query.split())) for query in each])


def repeated_ratio(records: Sequence[AnswerRecord]) -> float | None:
    """Queries that the same answer has made before / queries; case, punctuation and articles do not count."""
    repeated = made = 0
    for record in judged(records):
        asked = [normalized(query) for query, _ in queries(record)]
        repeated += len(asked) - len(set(asked))
        made += len(asked)
    return share(repeated, made)


def evidence(record: AnswerRecord) -> Evidence:
    """What the searches of one answer gave."""
    asked = queries(record)
    wanted = [text for text in map(normalized, record.references) if text not in _CHANCE]
    found, is_grounded = None, None
    if wanted and asked:
        passages, answer = _passages(record), normalized(record.final_answer or "")
        found = any(_stands_in(text, passages) for text in wanted)
        is_grounded = bool(answer) and _stands_in(answer, passages)
    return Evidence(
        is_correct=record.is_correct,
        queries=len(asked),
        empty=sum(not call.stdout.strip() for _, call in asked),
        found=found,
        is_grounded=is_grounded,
    )


def support(each: Sequence[Evidence]) -> Support:
    """See the fields of `Support`.

    Args:
      each: of judged answers.
    """
    known = [one for one in each if one.found is not None]
    return Support(
        answers=len(known),
        found=mean([float(bool(one.found)) for one in known]),
        right_if_found=mean([float(one.is_correct) for one in known if one.found]),
        right_if_not_found=mean([float(one.is_correct) for one in known if not one.found]),
        grounded=mean([float(bool(one.is_grounded)) for one in known]),
    )


def empty_ratio(each: Sequence[Evidence]) -> float | None:
    """Queries that gave no passage / queries."""
    return share(sum(one.empty for one in each), sum(one.queries for one in each))


def _passages(record: AnswerRecord) -> str:
    """What the policy was shown. Where the record has no text, what the searches gave."""
    shown = " ".join(part.text for part in record.parts if part.author == "tool")
    return normalized(shown or " ".join(call.stdout for _, call in queries(record)))


def _stands_in(text: str, passages: str) -> bool:
    """Whether whole words of the passages, in a row, are the text."""
    return f" {text} " in f" {passages} "
