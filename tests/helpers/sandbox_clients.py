"""A client for the length of one test."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

_Result = TypeVar("_Result")


def with_client(
    addresses: Sequence[str],
    work: Callable[[SandboxClient], Awaitable[_Result]],
    config: SandboxClientConfig,
) -> _Result:
    """What `work` returns, given a client of these servers that is closed afterwards."""

    async def main() -> _Result:
        client = SandboxClient(addresses, config)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(main())
