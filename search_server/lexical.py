"""BM25 over an index on disk (tantivy), with feedback from the first passage found.

Title and text are one field of terms in which the title counts TITLE_WEIGHT times. A query is a weighted sum of terms,
built term by term: no query language is parsed, so no text of a query can be an operator.

Feedback, in steps (Rocchio's idea, with one passage):
1. Search with the n terms of the query, each of weight 1.
2. Take the first passage. Score its terms that are not in the query by BM25, as if each were a query.
3. Keep the best FEEDBACK_TERMS of them, with weights in proportion to their scores and of sum n * FEEDBACK_WEIGHT.
4. Search with both. The first passage usually stays first; those that its words name come up behind it.
A question of two hops names one passage, which names the other: recall@5 on HotpotQA rises by 8 points (docs/search.md).
"""

import atexit
import collections
import functools
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence

import tantivy

from search_server import analysis
from search_server.corpus import BadCorpus, Document, clean
from search_server.search import Hit

TITLE_WEIGHT = 3
FEEDBACK_TERMS = 10
FEEDBACK_WEIGHT = 1.0
MOST_QUERY_TERMS = 256  # the first ones of a query count
_K1 = 1.2  # tantivy's own, which cannot be set; its b is 0.75
_REMEMBERED_TERMS = 1 << 16  # whose frequency is not looked up again
_MORE_FOR_TIES = 16  # hits beyond those asked for, among which equal scores are put in order
_MOST_FOR_TIES = 4096
_FIELD = "words"


def schema() -> tantivy.Schema:
    return (
        tantivy.SchemaBuilder()
        .add_text_field(_FIELD, tokenizer_name=_FIELD, index_option="freq")
        .add_bytes_field("document", stored=True)
        .add_unsigned_field("number", indexed=True, fast=True)
        .build()
    )


def open_index(folder: pathlib.Path) -> tantivy.Index:
    """The index in the folder, empty if there is none."""
    index = tantivy.Index(schema(), str(folder))
    index.register_tokenizer(_FIELD, analysis.analyzer())
    return index


def entry(document: Document, number: int) -> tantivy.Document:
    """A document as it is put into the index; `number` counts them from 0."""
    made = tantivy.Document()
    made.add_text(_FIELD, _indexed(document.title, document.text))
    made.add_bytes("document", document.as_json().encode())
    made.add_unsigned("number", number)
    return made


def _indexed(title: str, text: str) -> str:
    return f"{title}\n" * TITLE_WEIGHT + text


def _writable_view(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or links to its files in a temporary one: tantivy makes a lock file where it reads."""
    if os.access(folder, os.W_OK):
        return folder
    try:
        view = pathlib.Path(tempfile.mkdtemp(prefix="search-index-"))
    except FileNotFoundError as error:
        raise BadCorpus(f"{folder} is read-only, and so is /tmp: give one of them") from error
    atexit.register(shutil.rmtree, view, ignore_errors=True)
    for file in folder.iterdir():
        if file.suffix != ".lock":
            (view / file.name).symlink_to(file.resolve())
    return view


class LexicalSearch:
    """Searches one index; safe to call from several threads."""

    def __init__(self, folder: pathlib.Path, *, uses_feedback: bool = True):
        self._index = open_index(_writable_view(folder))
        self._index.config_reader("manual")  # an index does not change while it is served
        self._schema = self._index.schema
        self._searcher = self._index.searcher()
        self._analyzer = analysis.analyzer()
        self._stop_terms = analysis.stop_terms()
        self._uses_feedback = uses_feedback
        self._idf = functools.lru_cache(_REMEMBERED_TERMS)(self._idf_of)

    @property
    def num_documents(self) -> int:
        return self._searcher.num_docs

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """The best `topk` passages of each query; fewer if fewer share a term with it."""
        return [self._search_one(query, topk) for query in queries]

    def documents(self, numbers: Sequence[int]) -> list[bytes]:
        """JSON of the documents with these numbers."""
        found = []
        for number in numbers:
            query = tantivy.Query.term_query(self._schema, "number", number)
            [(_, address)] = self._searcher.search(query, 1, count=False).hits
            found.append(self._document(address))
        return found

    def terms(self, query: str) -> list[str]:
        """Distinct terms of a query, without stop words unless there are no others."""
        found = list(dict.fromkeys(self._analyzer.analyze(clean(query))))
        others = [term for term in found if term not in self._stop_terms]
        return (others or found)[:MOST_QUERY_TERMS]

    def _search_one(self, query: str, topk: int) -> list[Hit]:
        terms = self.terms(query)
        if not terms:
            return []
        weights = dict.fromkeys(terms, 1.0)
        if self._uses_feedback:
            for _, address in self._find(weights, 1):
                weights |= self._feedback(weights, self._document(address))
        hits = self._find(weights, topk)
        return [
            Hit(document=self._document(address), score=float(score)) for score, address in hits
        ]

    def _document(self, address: tantivy.DocAddress) -> bytes:
        stored = self._searcher.doc(address).get_first("document")
        assert stored is not None  # every entry has it
        return bytes(stored)

    def _find(self, weights: Mapping[str, float], count: int):
        """Passages of equal score come in the order of the corpus, however the index lies on disk.

        Where more than _MOST_FOR_TIES have the score of the last that is wanted, the index decides among them.
        """
        query = tantivy.Query
        parts = [
            (
                tantivy.Occur.Should,
                query.boost_query(query.term_query(self._schema, _FIELD, term, "freq"), weight),
            )
            for term, weight in weights.items()
        ]
        wanted = count + _MORE_FOR_TIES
        while True:
            found = self._searcher.search(query.boolean_query(parts), wanted, count=False).hits
            if len(found) < wanted or _rounded(found[-1]) < _rounded(found[count - 1]):
                break  # all that are equal to the last wanted one are there
            if wanted >= _MOST_FOR_TIES:
                break
            wanted = min(8 * wanted, _MOST_FOR_TIES)
        numbers = self._searcher.fast_field_values("number", [address for _, address in found])
        ordered = sorted(
            zip(found, numbers, strict=True), key=lambda pair: (-_rounded(pair[0]), pair[1])
        )
        return [hit for hit, _ in ordered[:count]]

    def _feedback(self, asked: Mapping[str, float], first: bytes) -> dict[str, float]:
        """Weights of the terms that the first passage adds."""
        title, _, text = json.loads(first)["contents"].partition("\n")
        counts = collections.Counter(self._analyzer.analyze(_indexed(title, text)))
        scores = {
            term: self._idf(term) * count * (_K1 + 1) / (count + _K1)
            for term, count in counts.items()
            if term not in asked and term not in self._stop_terms
        }
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:FEEDBACK_TERMS]
        total = sum(score for _, score in best)
        unit = FEEDBACK_WEIGHT * len(asked)
        return {term: unit * score / total for term, score in best if total > 0}

    def _idf_of(self, term: str) -> float:
        frequency = self._searcher.doc_freq(_FIELD, term)
        return math.log(1 + (self.num_documents - frequency + 0.5) / (frequency + 0.5))


def _rounded(hit: tuple[float, object]) -> float:
    """Scores that differ by less are equal: sums are added in the order of an index's parts."""
    return round(hit[0], 3)
