"""Calls to one of several servers, tried again while that may help. Knows no protocol."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jaxtool.core.types import ToolUnavailable
from jaxtool.tools.balancer import Balancer, Endpoint

T = TypeVar("T")
LONGEST_BACKOFF_S = 2.0


class TryAgain(Exception):
    """One attempt failed; another may pass. The message is one line with the server's address."""

    def __init__(
        self,
        message: str,
        *,
        is_busy: bool = False,
        is_sick: bool = True,
        pause_s: float = 0.0,
        has_hung: bool = False,
    ):
        """Args:
        is_busy: the server is full, which uses up no attempt, only time.
        is_sick: others are tried before this server for a while.
        pause_s: the server asks for as long before the next attempt.
        has_hung: no answer came in the time of an attempt.
        """
        super().__init__(message)
        self.is_busy = is_busy
        self.is_sick = is_sick
        self.pause_s = pause_s
        self.has_hung = has_hung


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """When to give up."""

    attempts: int
    backoff_s: float  # doubled each time, at most LONGEST_BACKOFF_S
    deadline_s: float  # for all attempts together; the first that hangs does not count where there is another server


async def with_retries(
    balancer: Balancer,
    patience: Patience,
    call: Callable[[Endpoint], Awaitable[T]],
    on_retry: Callable[[], None],
    load: Callable[[Endpoint], float] | None = None,
) -> tuple[Endpoint, T]:
    """The server that answered and its answer.

    Args:
      call: safe to repeat; raises TryAgain, or what no second attempt would mend.
      on_retry: is told of each further attempt.
      load: as of `Balancer.choose`.

    Raises:
      ToolUnavailable: with the message of the last attempt.
    """
    give_up = time.monotonic() + patience.deadline_s
    failed_attempts, backoff_s = 0, patience.backoff_s
    last: Endpoint | None = None
    may_hang = balancer.has_several  # else a stopped server would use up the time of a healthy one
    while True:
        endpoint = balancer.choose(avoid=last, load=load)
        endpoint.in_flight += 1
        began = time.monotonic()
        try:
            answer = await call(endpoint)
        except TryAgain as error:
            if error.is_sick:
                balancer.failed(endpoint)
            failed_attempts += not error.is_busy
            if error.has_hung and may_hang:
                give_up, may_hang = give_up + time.monotonic() - began, False
            pause_s = max(backoff_s, error.pause_s)
            is_over = time.monotonic() + pause_s > give_up
            if failed_attempts >= patience.attempts or is_over:
                raise ToolUnavailable(str(error)) from error
        else:
            balancer.succeeded(endpoint)
            return endpoint, answer
        finally:
            endpoint.in_flight -= 1
        last = endpoint
        on_retry()
        # Another server is tried at once; the same one gets time to recover.
        await asyncio.sleep(pause_s)
        backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
