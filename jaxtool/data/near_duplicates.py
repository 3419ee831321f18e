"""Texts that are nearly an earlier one: Jaccard similarity of their runs of words, exactly and not by sketches.

All pairs are compared in effect and few in fact: two sets of similarity t or more share one of the rarest
shingles of each (the prefix filter of Chaudhuri, Ganti and Kaushik, 2006). Not covered: paraphrases.
"""

import collections
import math
from collections.abc import Sequence

from jaxtool.data.question_words import runs_of

SHINGLE_WORDS = 5
_ROUNDING = 1e-9  # of threshold times a size


def jaccard(a: frozenset, b: frozenset) -> float:
    """|a ∩ b| / |a ∪ b|; 1 for two empty sets."""
    union = len(a | b)
    return len(a & b) / union if union else 1.0


def near_duplicates(texts: Sequence[str], *, threshold: float) -> list[int | None]:
    """For each text the index of the earlier one that it repeats; None for those to keep.

    A text is compared with those that are kept, so that no chain of small steps joins two far ones.

    Args:
      threshold: similarity from which a text is a repetition, above 0, at most 1.
    """
    sets = [frozenset(runs_of(text, SHINGLE_WORDS)) for text in texts]
    count = collections.Counter(shingle for each in sets for shingle in each)
    kept_with: dict[tuple[str, ...], list[int]] = collections.defaultdict(list)
    found: list[int | None] = []
    for index, own in enumerate(sets):
        # 1. The rarest shingles: whoever is similar has one of them among its own rarest.
        rarest = sorted(own, key=lambda shingle: (count[shingle], shingle))
        prefix = rarest[: len(own) - math.ceil(threshold * len(own) - _ROUNDING) + 1]
        # 2. Those kept that share one, compared in full; the first of them is named.
        candidates = sorted({other for shingle in prefix for other in kept_with[shingle]})
        twin = next((i for i in candidates if jaccard(own, sets[i]) >= threshold), None)
        found.append(twin)
        if twin is None:
            for shingle in prefix:
                kept_with[shingle].append(index)
    return found
