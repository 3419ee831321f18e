"""Search-R1's protocol: what a request may say, and how an answer is written.

Request   {"queries": [text, ...], "topk": number or null, "return_scores": true or false}
Answer    {"result": [[document, ...], ...]}                      one list for each query, best first
          {"result": [[{"document": document, "score": s}, ...]]}  with return_scores
Document  {"id": text, "contents": "\\"Title\\"\\ntext"}

Search-R1's own server ignores keys that it does not know. This one refuses them, because a mistyped `topk` would go
unseen. Sources: search_r1/search/retrieval_server.py, and verl's client (tools/utils/search_r1_like_utils.py).
"""

import dataclasses
import json
import math
from collections.abc import Sequence

from search_server.config import ServerConfig
from search_server.search import Hit

_KEYS = ("queries", "topk", "return_scores")


class BadRequest(ValueError):
    """A request that is refused with status 400; the message says why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    queries: list[str]
    topk: int
    return_scores: bool


def read(body: bytes, config: ServerConfig) -> Request:
    """The request of a body; raises BadRequest with the reason."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error!s:.200}") from error
    if not isinstance(given, dict):
        raise BadRequest(f"the body must be an object with {', '.join(_KEYS)}")
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise BadRequest(f"unknown key {unknown[0]!r:.80}: there are {', '.join(_KEYS)}")
    queries = _queries(given.get("queries"), config)
    topk = _topk(given.get("topk"), config)
    if len(queries) * topk > config.max_answer_passages:
        raise BadRequest(
            f"{len(queries)} queries with topk {topk} ask for more than "
            f"{config.max_answer_passages} passages (--max-answer-passages): send fewer at once"
        )
    return_scores = given.get("return_scores", False)
    if not isinstance(return_scores, bool):
        raise BadRequest(f"return_scores must be true or false, not {return_scores!r:.80}")
    return Request(queries=queries, topk=topk, return_scores=return_scores)


def _queries(given: object, config: ServerConfig) -> list[str]:
    if not isinstance(given, list):
        raise BadRequest("queries must be a list of texts")
    if len(given) > config.max_queries:
        raise BadRequest(
            f"{len(given)} queries are more than {config.max_queries} (--max-queries): "
            "send fewer at once"
        )
    queries = []
    for number, query in enumerate(given):
        if not isinstance(query, str):
            raise BadRequest(f"queries[{number}] must be text, not {query!r:.80}")
        if len(query) > config.max_query_chars:
            raise BadRequest(
                f"queries[{number}] has {len(query)} characters, more than "
                f"{config.max_query_chars} (--max-query-chars)"
            )
        queries.append(query)
    return queries


def _topk(given: object, config: ServerConfig) -> int:
    if given is None or (given == 0 and not isinstance(given, bool)):
        return config.topk  # Search-R1's server takes 0 as not given
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= config.max_topk:
        raise BadRequest(
            f"topk must be a whole number of 1 to {config.max_topk}, not {given!r:.80}"
        )
    return given


def write(results: Sequence[Sequence[Hit]], return_scores: bool) -> bytes:
    """The answer's body. Documents are JSON already."""
    lists = []
    for hits in results:
        if return_scores:
            parts = [
                b'{"document": %b, "score": %b}' % (hit.document, _number(hit.score))
                for hit in hits
            ]
        else:
            parts = [hit.document for hit in hits]
        lists.append(b"[" + b", ".join(parts) + b"]")
    return b'{"result": [' + b", ".join(lists) + b"]}"


def _number(score: float) -> bytes:
    return (b"%.6f" % score) if math.isfinite(score) else b"0.0"
