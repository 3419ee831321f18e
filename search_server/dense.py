"""Dense retrieval: vectors of an encoder in an HNSW index (usearch), read from disk by memory map.

Building encodes into `vectors.f32` first, row after row, so that a kill costs one batch; then the graph is made in memory
and written. Queries that a graph answers are approximate. Passages come from the lexical index beside it.
"""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from search_server import corpus
from search_server.corpus import BadCorpus
from search_server.encoder import Encoder
from search_server.lexical import LexicalSearch
from search_server.manifest import Manifest
from search_server.progress import Progress
from search_server.search import Hit

ROWS_A_BATCH = 64  # that the encoder sees at once
_VECTORS, _GRAPH = "vectors.f32", "vectors.usearch"


def _usearch():
    try:
        from usearch import index
    except ImportError as error:
        raise BadCorpus(f"dense retrieval: pip install '.[search-dense]': {error}") from error
    return index


def index_vectors(paths: Sequence[pathlib.Path], part: pathlib.Path, made: Manifest) -> Manifest:
    """Adds the vectors of all passages to the index that is built in `part`."""
    library = _usearch()
    encoder = Encoder(made.encoder)
    file = part / _VECTORS
    _encode(paths, file, made, encoder)
    vectors = np.memmap(file, np.float32, "r", shape=(made.documents, encoder.width))
    graph = library.Index(ndim=encoder.width, metric="cos", dtype="f16")
    rows = Progress("vectors indexed", made.documents).over(range(made.documents))
    for start in rows:
        if start % 4096 == 0:
            keys = np.arange(start, min(start + 4096, made.documents), dtype=np.uint64)
            graph.add(keys, np.asarray(vectors[start : start + len(keys)]))
    graph.save(str(part / _GRAPH))
    del vectors
    file.unlink()
    return made.replace(vector_width=encoder.width)


def _encode(
    paths: Sequence[pathlib.Path], file: pathlib.Path, made: Manifest, encoder: Encoder
) -> None:
    size = 4 * encoder.width
    done = file.stat().st_size // size if file.exists() else 0
    with open(file, "ab") as out:
        os.truncate(file, done * size)  # a kill may have cut a row
        batch: list[str] = []
        rows = Progress("passages encoded", made.documents, done)
        for _, document in rows.over(corpus.documents(paths, skip=done)):
            batch.append(made.passage_prefix + document.contents)
            if len(batch) == ROWS_A_BATCH:
                out.write(encoder.vectors(batch).tobytes())
                out.flush()
                batch = []
        if batch:
            out.write(encoder.vectors(batch).tobytes())
    if file.stat().st_size != made.documents * size:
        raise BadCorpus(f"{paths[0]}: the corpus changed while it was encoded: start again")


class VectorSearch:
    """Nearest passages by cosine; safe to call from several threads."""

    def __init__(self, folder: pathlib.Path, made: Manifest, passages: LexicalSearch):
        self._encoder = Encoder(made.encoder)
        if self._encoder.width != made.vector_width:
            raise BadCorpus(
                f"{folder}: has vectors of {made.vector_width} numbers, --encoder {made.encoder} "
                f"gives {self._encoder.width}: it is another one; give --rebuild"
            )
        graph = _usearch().Index.restore(str(folder / _GRAPH), view=True)
        if graph is None or len(graph) != made.documents:
            raise BadCorpus(f"{folder / _GRAPH}: damaged; build it with --rebuild")
        self._graph = graph
        self._prefix = made.query_prefix
        self._passages = passages

    @property
    def num_documents(self) -> int:
        return len(self._graph)

    def search(self, queries: list[str], topk: int) -> list[list[Hit]]:
        vectors = self._encoder.vectors([self._prefix + query for query in queries])
        results = []
        for vector in vectors:
            found = self._graph.search(vector, min(topk, self.num_documents))
            documents = self._passages.documents([int(key) for key in found.keys])
            results.append(
                [
                    Hit(document=document, score=1.0 - float(distance))
                    for document, distance in zip(documents, found.distances, strict=True)
                ]
            )
        return results
