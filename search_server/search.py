"""What a server searches: passages found, and the interface of what finds them."""

import dataclasses
from typing import Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """A passage found."""

    document: bytes  # JSON of the document
    score: float


class Search(Protocol):
    """BM25, vectors, or an engine elsewhere. Called from several threads."""

    @property
    def num_documents(self) -> int: ...

    def search(self, queries: list[str], topk: int) -> list[list[Hit]]:
        """The best `topk` passages of each query, best first; fewer where fewer fit."""
        ...


class SearchFailed(RuntimeError):
    """The engine behind the server did not answer; the client should try again."""
