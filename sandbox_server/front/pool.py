"""Fork servers kept alive, and children forked ahead so that a request finds one waiting."""

import asyncio
import contextlib
import logging
import time

from sandbox_server.config import ServerConfig
from sandbox_server.front.fork_server import Child, ForkServer, ForkServerGone, UidIndexes
from sandbox_server.inside.lockdown import Tier

_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 10.0
_HEALTHY_AFTER_S = 30.0  # a fork server that lived so long starts again without delay
_UID_INDEX_COUNT = 2048
_SCIPY_WORDS = ("scipy", "lambdify", "sympy.stats")  # lambdify imports scipy if it can
log = logging.getLogger("sandbox_server.pool")


class _Worker:
    """One fork server, its spares and its restarts."""

    def __init__(
        self,
        tier: Tier,
        config: ServerConfig,
        uid_indexes: UidIndexes,
        num_spares: int,
        with_scipy: bool,
    ):
        self._config = config
        self._num_spares = num_spares
        self.with_scipy = with_scipy
        scratch_bytes = config.default_limits.scratch_bytes
        self.server = ForkServer(tier, scratch_bytes, with_scipy, uid_indexes, config.packages)
        self.spares: list[Child] = []
        self.busy = 0
        self.restarts = 0
        self._refill: asyncio.Task[None] | None = None

    async def take(self) -> Child:
        """A child waiting for a job. While others wait too, the next fork does not disturb its run."""
        # A spare may have died while it waited. Only the last one is replaced at once; the others
        # when their run has ended (`Pool.child`), for a fork during a run slows the run.
        while self.spares:
            child = self.spares.pop(0)
            if not child.ended.done():
                if not self.spares:
                    self.refill()
                return child
            child.close()
        return await self.server.spawn()

    def refill(self) -> None:
        if self._refill is None or self._refill.done():
            self._refill = asyncio.create_task(self._make_spares())

    async def _make_spares(self) -> None:
        with contextlib.suppress(ForkServerGone):
            while len(self.spares) < self._num_spares:
                self.spares.append(await self.server.spawn())

    def drop_spares(self) -> None:
        for child in self.spares:
            child.close()
        self.spares.clear()


class Pool:
    """All fork servers of this server."""

    def __init__(self, config: ServerConfig, tier: Tier):
        self.tier = tier
        self.uid_indexes = UidIndexes(_UID_INDEX_COUNT)
        share = -(-config.concurrency // config.num_fork_servers)
        self._workers = [
            _Worker(tier, config, self.uid_indexes, share, with_scipy)
            for with_scipy in (True, False)
            for _ in range(config.num_fork_servers)
        ]
        self._restarters: list[asyncio.Task[None]] = []
        self.is_closing = False

    @property
    def facts(self) -> dict:
        """What the first fork server said of itself."""
        return self._workers[0].server.facts

    @property
    def restarts(self) -> int:
        return sum(worker.restarts for worker in self._workers)

    @property
    def is_ready(self) -> bool:
        return any(worker.server.is_alive for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        return [worker.server.pid for worker in self._workers]

    async def start(self) -> None:
        starting = [asyncio.create_task(worker.server.start()) for worker in self._workers]
        try:
            await asyncio.gather(*starting)
        except BaseException:  # the reason is the first one's; the others end quietly
            for worker in self._workers:
                worker.server.stop()
            await asyncio.gather(*starting, return_exceptions=True)
            raise
        for worker in self._workers:
            worker.refill()
            self._restarters.append(asyncio.create_task(self._keep_alive(worker)))

    async def stop(self) -> None:
        self.is_closing = True
        for task in self._restarters:
            task.cancel()
        await asyncio.gather(*self._restarters, return_exceptions=True)
        for worker in self._workers:
            worker.drop_spares()
            worker.server.stop()

    @contextlib.asynccontextmanager
    async def child(self, code: str):
        """A waiting child for `code`; killed and reaped at the end.

        Where the text names scipy the child has it loaded; elsewhere importing it works too, slower.
        """
        worker = self._least_busy(any(word in code for word in _SCIPY_WORDS))
        worker.busy += 1
        try:
            child = await worker.take()
            try:
                yield child
            finally:
                child.close()
                worker.refill()
        finally:
            worker.busy -= 1

    def _least_busy(self, with_scipy: bool) -> _Worker:
        """A live fork server, of the kind asked for if there is one."""
        alive = [worker for worker in self._workers if worker.server.is_alive]
        if not alive:
            raise ForkServerGone("the fork server is being started again")
        return min(alive, key=lambda one: (one.with_scipy != with_scipy, one.busy))

    def server_for_session(self) -> ForkServer:
        """A live fork server for a program that is not known yet: with everything loaded."""
        return self._least_busy(with_scipy=True).server

    async def _keep_alive(self, worker: _Worker) -> None:
        """Starts the fork server again when it dies; slower when it keeps dying."""
        backoff_s = _FIRST_BACKOFF_S
        started = time.monotonic()
        while True:
            assert worker.server.gone is not None
            await asyncio.shield(worker.server.gone)
            worker.drop_spares()
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                backoff_s = _FIRST_BACKOFF_S
            worker.restarts += 1
            log.warning("fork server died; starting again", extra={"backoff_s": backoff_s})
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            started = time.monotonic()
            try:
                await worker.server.start()
            except (ForkServerGone, TimeoutError) as error:
                log.error("fork server did not start", extra={"error": str(error)})
                continue
            worker.refill()
