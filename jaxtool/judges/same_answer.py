"""Whether two answers say the same by a judge's rules, without a reference: what a majority vote counts.

Covered: mathematics (our own comparison, no process), words, letters; any other judge counts equal texts.
Knows no problem.
"""

from collections.abc import Callable, Sequence

from jaxtool.judges import comparison, text_judges
from jaxtool.judges.word_match import normalized

Same = Callable[[str, str], bool]
_LETTERS = text_judges.MultipleChoice.letters


def same_by(judge: str) -> Same:
    """The rule of a judge.

    Args:
      judge: its class, as "Mathematics".
    """
    return _RULES.get(judge, _same_text)


def classes_of(answers: Sequence[str | None], same: Same) -> list[int | None]:
    """The class of each answer, numbered by first appearance; None: there is no answer, so no vote.

    Answers are compared with the first of each class, in order. Example: "1/2", "0.5", None, "2" give 0, 0, None, 1.
    """
    known: dict[str, int] = {}  # by text, so that a text is compared once
    firsts: list[str] = []
    found: list[int | None] = []
    for answer in answers:
        if answer is None:
            found.append(None)
            continue
        if answer not in known:
            number = next((i for i, first in enumerate(firsts) if same(answer, first)), len(firsts))
            if number == len(firsts):
                firsts.append(answer)
            known[answer] = number
        found.append(known[answer])
    return found


def _same_text(one: str, other: str) -> bool:
    return one.split() == other.split()


def _same_mathematics(one: str, other: str) -> bool:
    return _same_text(one, other) or comparison.compare(one, other).is_equal is True


def _same_words(one: str, other: str) -> bool:
    return normalized(one) == normalized(other)


def _same_letters(one: str, other: str) -> bool:
    found = text_judges.choices(one, _LETTERS), text_judges.choices(other, _LETTERS)
    return found[0] == found[1] if all(found) else _same_text(one, other)


_RULES: dict[str, Same] = {
    "Mathematics": _same_mathematics,
    "ExactMatch": _same_words,
    "TokenF1": _same_words,
    "MultipleChoice": _same_letters,
}
