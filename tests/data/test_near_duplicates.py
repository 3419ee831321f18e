"""Questions that are nearly an earlier one: exact, against comparing all pairs."""

import random

from jaxtool.data.near_duplicates import jaccard, near_duplicates
from jaxtool.data.question_words import runs_of


def test_jaccard_by_hand():
    """Two of four in common."""
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_near_duplicates_are_those_that_comparing_all_pairs_finds():
    draw = random.Random(0)
    texts = [
        " ".join(draw.choice("abcd") for _ in range(draw.randrange(4, 14))) for _ in range(300)
    ]
    for threshold in (0.3, 0.5, 0.8, 1.0):
        sets = [frozenset(runs_of(text, 5)) for text in texts]
        kept: list[int] = []
        expected: list[int | None] = []
        for i, own in enumerate(sets):
            twin = next((j for j in kept if jaccard(own, sets[j]) >= threshold), None)
            expected.append(twin)
            kept += [i] if twin is None else []
        assert near_duplicates(texts, threshold=threshold) == expected
        assert any(twin is not None for twin in expected)


def test_short_questions_are_told_apart_by_their_signs():
    texts = ["What is 3+4?", "what is 3 + 4", "What is 3*4?"]
    assert near_duplicates(texts, threshold=0.8) == [None, 0, None]
