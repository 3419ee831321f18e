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


def empty_ratio(records: Sequence[AnswerRecord]) -> float | None:
    """Queries that gave no passage / queries."""
    calls = [call for record in judged(records) for _, call in queries(record)]
    return mean([float(not call.stdout.strip()) for call in calls])


def support(records: Sequence[AnswerRecord]) -> Support:
    """See the fields of `Support`."""
    found, grounded = [], []
    for record in judged(records):
        wanted = [text for text in map(normalized, record.references) if text not in _CHANCE]
        if not wanted or not queries(record):
            continue
        passages = _passages(record)
        found.append((any(_stands_in(text, passages) for text in wanted), record.is_correct))
        answer = normalized(record.final_answer or "")
        grounded.append(float(bool(answer) and _stands_in(answer, passages)))
    return Support(
        answers=len(found),
        found=mean([float(is_found) for is_found, _ in found]),
        right_if_found=mean([float(is_right) for is_found, is_right in found if is_found]),
        right_if_not_found=mean([float(is_right) for is_found, is_right in found if not is_found]),
        grounded=mean(grounded),
    )


def _passages(record: AnswerRecord) -> str:
    """What the policy was shown. Where the record has no text, what the searches gave."""
    shown = " ".join(part.text for part in record.parts if part.author == "tool")
    return normalized(shown or " ".join(call.stdout for _, call in queries(record)))


def _stands_in(text: str, passages: str) -> bool:
    """Whether whole words of the passages, in a row, are the text."""
    return f" {text} " in f" {passages} "
