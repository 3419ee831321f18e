"""Who rewrites: what an endpoint and a decoder of ours have in common, so that the same loop asks both.

Not covered: the endpoint (`chat_client`) and the decoder (`jaxtool.train.own_rewriter`, which this package does not
know), the loop (`rewriting`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.spending import Account, Tokens


class RewriterStopped(RuntimeError):
    """No further request can pass; one line."""


class RequestRefused(Exception):
    """This request will never be answered, whenever it is asked.

    Args:
      is_of_the_row: the row is at fault for certain. An endpoint that says no may mean the settings.
    """

    def __init__(self, message: str, *, is_of_the_row: bool = False):
        super().__init__(message)
        self.is_of_the_row = is_of_the_row


class RequestLost(Exception):
    """All attempts failed."""


class AttemptLog(Protocol):
    """Is told of each attempt, so that a killed process knows what it may have paid for."""

    def sent(self, row: str, most: Tokens) -> None: ...

    def unanswered(self, row: str, *, is_billed: bool, why: str) -> None: ...


class Client(Protocol):
    """A rewriter at work."""

    @property
    def failures(self) -> Mapping[str, int]:
        """Attempts that came to nothing, by status or error."""
        ...

    async def ask(self, row: str, prompt: str) -> Reply:
        """The reply to a prompt. What it costs is on the account.

        Args:
          row: for the log.

        Raises:
          BudgetReached: it might not fit.
          RewriterStopped: no request can pass.
          RequestRefused: this one cannot.
          RequestLost: all attempts failed.
        """
        ...

    async def close(self) -> None: ...


class Rewriter(Protocol):
    """Whom to ask, before it is asked."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a recorded reply rests on, as JSON: a resumed run must have the same."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests on their way at a time."""
        ...

    def cost(self, prompt: str) -> tuple[int, Tokens]:
        """Prompt tokens to be expected, and the most that the request can cost."""
        ...

    def open(self, account: Account, log: AttemptLog, prompts: Sequence[str]) -> Client:
        """Begins; the caller closes it.

        Args:
          prompts: all of the work, those that are answered already included.
        """
        ...
