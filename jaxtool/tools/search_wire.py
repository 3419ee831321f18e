"""Between Search-R1's protocol and the core's types: a query out, passages as text in. Pure.

Request   {"queries": [query], "topk": 3, "return_scores": true}
Answer    {"result": [[{"document": {"id", "contents"}, "score"}, ...]]}; the documents alone are read as well
Contents  '"Title"\\ntext' in Search-R1's corpus; a document with "title" and "text" is read as well
Text      'Doc 1(Title: Title) text\\nDoc 2(Title: ...) ...\\n', as Search-R1 puts it into the context

Not covered: how long the text may be in the context (`ToolSpec.max_observation_tokens`).
"""

import dataclasses
import json
from typing import Any

from jaxtool.core.calls import ToolSpec

QUERY = "query"  # the tool's one argument
SEARCH_SPEC = ToolSpec(
    name="search",
    description="Searches a collection of documents and returns the passages that fit a query best.",
    parameters={
        "type": "object",
        "properties": {QUERY: {"type": "string", "description": "What to look for."}},
        "required": [QUERY],
        "additionalProperties": False,
    },
)
NOTHING_FOUND = "No passage was found.\n"


class UnknownAnswer(Exception):
    """A server answered with something that this client cannot read: trouble, never a result."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    title: str
    text: str


def request_body(query: str, topk: int) -> bytes:
    """The request for one query; what is no character in UTF-8 becomes "?"."""
    sendable = query.encode("utf-8", "replace").decode("utf-8")
    return json.dumps({"queries": [sendable], "topk": topk, "return_scores": True}).encode()


def passages_of(body: bytes, topk: int) -> list[Passage]:
    """The passages for the one query of a request, best first.

    Raises:
      UnknownAnswer: the body is no answer to it.
    """
    try:
        result = json.loads(body)["result"]
        [found] = result
        passages = [_passage(entry) for entry in found]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnknownAnswer(
            f"no answer in Search-R1's protocol ({type(error).__name__}: {error!s:.80}): {body[:120]!r}"
        ) from error
    if len(passages) > topk:
        raise UnknownAnswer(f"{len(passages)} passages, and topk was {topk}")
    return passages


def _passage(entry: Any) -> Passage:
    """A passage of an entry with or without its score. Raises KeyError or TypeError if it is neither."""
    document = _object(entry)
    document = _object(document.get("document", document))
    if "contents" in document:
        title, _, text = _text(document["contents"]).partition("\n")
        return Passage(title=title.strip().strip('"'), text=text.strip())
    return Passage(title=_text(document["title"]), text=_text(document["text"]))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.40} is no document")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value


def shown(passages: list[Passage]) -> str:
    """The text that a policy reads.

    shown([Passage(title="Oslo", text="Capital of Norway.")])  ->  "Doc 1(Title: Oslo) Capital of Norway.\\n"
    """
    lines = [
        f"Doc {number}(Title: {passage.title}) {passage.text}\n"
        for number, passage in enumerate(passages, start=1)
    ]
    return "".join(lines) or NOTHING_FOUND
