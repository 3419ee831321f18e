"""HotpotQA's passages as a corpus with questions, and larger corpora made of them, for the search benchmarks.

A made passage has the title of two drawn titles' halves and the sentences of three drawn passages, by a seed. Its words
are those of real passages, so every word is found in more documents as the corpus grows: a hard case for an index.
"""

import json
import pathlib
import random
from collections.abc import Iterator, Sequence

import numpy as np

HOTPOTQA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "hotpotqa_500.jsonl"
Row = dict[str, str]
Question = tuple[
    str, set[str]
]  # the question and its supporting titles, which are the ids of their passages


def read(path: pathlib.Path) -> tuple[list[Row], list[Question]]:
    """Distinct passages of the questions' contexts, and the questions."""
    passages: dict[str, str] = {}
    questions = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        for title, sentences in row["context"]:
            passages.setdefault(title, "".join(sentences).strip())
        questions.append((row["question"], {title for title, _ in row["supporting_facts"]}))
    rows = [{"id": title, "title": title, "text": text} for title, text in passages.items()]
    return rows, questions


def grown(rows: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    """The rows themselves, then recombinations of them, `count` in all."""
    yield from rows[:count]
    draw = random.Random(seed)
    sentences = [row["text"].split(". ") for row in rows]
    titles = [row["title"].split() for row in rows]
    for number in range(len(rows), count):
        first, second = draw.choice(titles), draw.choice(titles)
        title = " ".join([*first[: len(first) // 2 + 1], *second[len(second) // 2 :]])
        text = ". ".join(draw.choice(draw.choice(sentences)) for _ in range(4))
        yield {"id": f"made-{number}", "title": title, "text": text}


def recall_at(found: Sequence[Sequence[str]], questions: Sequence[Question]) -> float:
    """Mean over questions of the share of supporting titles that was found."""
    shares = [
        len(gold & set(ids)) / len(gold) for ids, (_, gold) in zip(found, questions, strict=True)
    ]
    return float(np.mean(shares))
