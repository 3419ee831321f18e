"""A Qdrant collection behind the same protocol, for a corpus that one machine does not hold.

`python -m search_server.build --qdrant URL --collection NAME --corpus FILE --encoder WHAT` fills a collection: point i is
passage i, with the payload {"id", "contents"}. A fill that was killed goes on after the points that are there. A
collection filled by others is served too, if its payloads are rows of a corpus: {"id", "contents"} or {"title", "text"}.
Sharding, replicas and disks are Qdrant's matter. A directory in place of a URL is the client's embedded mode, for tests.
"""

import argparse
import itertools
import pathlib
import threading
import warnings
from typing import Any

from search_server import corpus
from search_server.corpus import BadCorpus
from search_server.encoder import Encoder
from search_server.lexical import Hit
from search_server.progress import Progress
from search_server.search import SearchFailed

_POINTS_A_BATCH = 256
_TIMEOUT_S = 30


def _library() -> Any:
    try:
        import qdrant_client
    except ImportError as error:
        raise BadCorpus(f"--qdrant: pip install '.[search-qdrant]': {error}") from error
    return qdrant_client


def _client(where: str, key_file: str) -> Any:
    library = _library()
    if not where.startswith(("http://", "https://")):
        if key_file:
            raise BadCorpus("--qdrant-key-file is for a URL; --qdrant is a directory")
        return library.QdrantClient(path=where, force_disable_check_same_thread=True)
    key = pathlib.Path(key_file).read_text("utf-8").strip() if key_file else None
    with warnings.catch_warnings():  # of a key without TLS
        warnings.simplefilter("ignore")
        return library.QdrantClient(
            url=where,
            port=None if where.count(":") > 1 else 6333,
            api_key=key,
            timeout=_TIMEOUT_S,
            check_compatibility=False,  # it would ask in a thread of its own, whose errors nobody sees
        )


def _given(flags: argparse.Namespace) -> tuple[Any, Encoder]:
    if not flags.collection:
        raise BadCorpus("--qdrant needs --collection NAME")
    if not flags.encoder:
        raise BadCorpus("--qdrant needs --encoder WHAT: queries are searched by their vectors")
    if flags.index:
        raise BadCorpus("--index and --qdrant are two places for the passages: give one")
    return _client(flags.qdrant, flags.qdrant_key_file), Encoder(flags.encoder)


def _trouble(flags: argparse.Namespace, error: Exception) -> BadCorpus:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BadCorpus(f"--qdrant {flags.qdrant}, collection {flags.collection}: {reason:.300}")


def upload(flags: argparse.Namespace) -> int:
    """Fills the collection with the corpus; how many passages it has then."""
    corpus.check_files(flags.corpus)
    client, encoder = _given(flags)
    try:
        return _upload(client, encoder, flags)
    except BadCorpus:
        raise
    except Exception as error:  # the client has a dozen of its own and of httpx
        raise _trouble(flags, error) from error
    finally:
        client.close()


def _upload(client: Any, encoder: Encoder, flags: argparse.Namespace) -> int:
    models, name = _library().models, flags.collection
    total = corpus.check_rows(flags.corpus)
    if flags.rebuild:
        client.delete_collection(name)
    if not client.collection_exists(name):
        size = models.VectorParams(size=encoder.width, distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=size)
    _check_width(client, encoder, flags)
    done = client.count(name, exact=True).count
    if done > total:
        raise BadCorpus(
            f"collection {name} has {done} points, the corpus {total} rows: it holds something "
            "else; give --rebuild or another --collection"
        )
    rows = Progress("passages uploaded", total, done).over(
        corpus.documents(flags.corpus, skip=done)
    )
    for batch in _batches(enumerate((document for _, document in rows), start=done)):
        texts = [flags.passage_prefix + document.contents for _, document in batch]
        client.upsert(
            name,
            points=models.Batch(
                ids=[number for number, _ in batch],
                vectors=encoder.vectors(texts).tolist(),
                payloads=[{"id": each.id, "contents": each.contents} for _, each in batch],
            ),
            wait=True,
        )
    return client.count(name, exact=True).count


def _batches(items: Any) -> Any:
    while batch := list(itertools.islice(items, _POINTS_A_BATCH)):
        yield batch


def _check_width(client: Any, encoder: Encoder, flags: argparse.Namespace) -> None:
    vectors = client.get_collection(flags.collection).config.params.vectors
    width = getattr(vectors, "size", None)
    if width is None:
        raise BadCorpus(f"collection {flags.collection} has named vectors: one unnamed is needed")
    if width != encoder.width:
        raise BadCorpus(
            f"collection {flags.collection} has vectors of {width} numbers, --encoder "
            f"{flags.encoder} gives {encoder.width}"
        )


class QdrantSearch:
    """Nearest passages of a collection; safe to call from several threads."""

    def __init__(self, flags: argparse.Namespace):
        if flags.corpus:
            raise BadCorpus(
                "a collection is filled by python -m search_server.build; serve it without --corpus"
            )
        self._client, self._encoder = _given(flags)
        self._name, self._prefix = flags.collection, flags.query_prefix
        is_embedded = not flags.qdrant.startswith("http")
        self._turn = threading.Lock() if is_embedded else threading.Semaphore(64)
        try:
            _check_width(self._client, self._encoder, flags)
            self.num_documents = self._client.count(self._name, exact=True).count
        except BadCorpus:
            raise
        except Exception as error:
            raise _trouble(flags, error) from error
        if self.num_documents == 0:
            raise BadCorpus(f"collection {self._name} is empty")

    def search(self, queries: list[str], topk: int) -> list[list[Hit]]:
        """Raises SearchFailed where Qdrant does not answer."""
        models = _library().models
        vectors = self._encoder.vectors([self._prefix + query for query in queries])
        requests = [
            models.QueryRequest(query=vector.tolist(), limit=topk, with_payload=True)
            for vector in vectors
        ]
        try:
            with self._turn:
                answers = self._client.query_batch_points(self._name, requests=requests)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SearchFailed(f"Qdrant did not answer: {reason:.200}") from error
        return [[self._hit(point) for point in answer.points] for answer in answers]

    def _hit(self, point: Any) -> Hit:
        number = point.id if isinstance(point.id, int) else 0
        document = corpus.document(point.payload, number, f"point {point.id} of {self._name}")
        return Hit(document=document.as_json().encode(), score=float(point.score))
