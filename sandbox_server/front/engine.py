"""Executes requests: checks, queue, child, outcome. Plain objects, no gRPC."""

import base64
import dataclasses
import os
import pathlib
from collections.abc import Container, Mapping, Sequence

from sandbox_server.config import SMALLEST_LIMITS, LimitSet, ServerConfig
from sandbox_server.front.execution import Outcome, job_limits, run_once
from sandbox_server.front.pool import Pool
from sandbox_server.front.queue import FairQueue
from sandbox_server.front.request_files import InvalidRequest, check_file_name, check_files
from sandbox_server.inside import namespaces
from sandbox_server.inside.lockdown import Tier

_TASKS_REFRESH_CALLS = 64
_MOST_FETCHED = 64  # files that one request may ask for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One stateless request, checked."""

    code: str
    stdin: str = ""
    limits: LimitSet
    seed: int = 0
    echo: bool = True
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    fetch_files: tuple[str, ...] = ()  # below /tmp, given back after the run


def merge_limits(requested: dict[str, int], config: ServerConfig) -> LimitSet:
    """Requested limits over the defaults; zero means default. Raises above the server's maximum."""
    merged = dataclasses.asdict(config.default_limits)
    for name, value in requested.items():
        if not value:
            continue
        smallest = getattr(SMALLEST_LIMITS, name)
        largest = getattr(config.maximum_limits, name)
        if not smallest <= value <= largest:
            raise InvalidRequest(f"limit {name}={value} is outside [{smallest}, {largest}]")
        merged[name] = value
    return LimitSet(**merged)


def check_code_and_input(
    code: str,
    stdin: str,
    files: dict[str, bytes],
    limits: LimitSet,
    tier: Tier,
    config: ServerConfig,
) -> None:
    """Raises InvalidRequest if the program, its input or its files are more than is taken."""
    check_code(code, config)
    size = len(stdin.encode("utf-8", "surrogatepass")) + sum(map(len, files.values()))
    if size > config.input_bytes:
        raise InvalidRequest(
            f"standard input and files have {size} bytes, at most {config.input_bytes} are taken"
        )
    if files and tier is not Tier.NAMESPACE:
        raise InvalidRequest(f"files need the namespace tier, this server has {tier}")
    inodes = namespaces.scratch_inodes(config.default_limits.scratch_bytes)
    check_files(files, limits, inodes)


def check_code(code: str, config: ServerConfig) -> None:
    size = len(code.encode("utf-8", "surrogatepass"))
    if size > config.code_bytes:
        raise InvalidRequest(f"code has {size} bytes, at most {config.code_bytes} are taken")


def check_fetch_files(names: Sequence[str], tier: Tier) -> None:
    """Raises where the files of a run cannot be given back, or their names are wrong."""
    if names and tier is not Tier.NAMESPACE:
        raise InvalidRequest(f"fetch_files needs the namespace tier, this server has {tier}")
    if len(names) > _MOST_FETCHED:
        raise InvalidRequest(f"fetch_files names {len(names)} files, at most {_MOST_FETCHED}")
    for name in names:
        check_file_name(name)


def tasks_of_user(
    uid: int,
    *,
    fork_servers: Container[int] = (),
    most: int = 0,
    proc: pathlib.Path = pathlib.Path("/proc"),
) -> int:
    """Threads that run as `uid` on this machine.

    A process below one of `fork_servers` counts as `most` at the highest. A program that starts all
    threads it may would else raise the limit of programs after it, and they that of others.
    """
    tasks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    num_tasks = len(os.listdir(entry / "task"))
                    stat = (entry / "stat").read_text("utf-8", "replace")
                    # Behind the name, which may hold anything: state, parent, ...
                    parent = stat.rpartition(")")[2].split()[1]
                    tasks[int(entry.name)], parents[int(entry.name)] = num_tasks, int(parent)
            except (OSError, IndexError):  # it has ended
                continue
    return sum(
        min(num_tasks, most) if _is_below(pid, fork_servers, parents) else num_tasks
        for pid, num_tasks in tasks.items()
    )


def _is_below(pid: int, ancestors: Container[int], parents: Mapping[int, int]) -> bool:
    """Among processes whose numbers were read one after another: a loop of parents ends too."""
    seen: set[int] = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        pid = parents[pid]
        if pid in ancestors:
            return True
    return False


class Engine:
    """Runs checked programs. The one place where queue, pool and limits meet."""

    def __init__(self, config: ServerConfig, pool: Pool):
        self.config = config
        self.pool = pool
        self.queue = FairQueue(
            concurrency=config.concurrency,
            capacity=config.max_queued,
            max_wait_s=config.queue_wait_s,
        )
        self._task_allowance = 0
        self._calls_until_refresh = 0

    def task_allowance(self) -> int:
        """Where executions share the server's user id, RLIMIT_NPROC counts its other tasks too."""
        if self.pool.tier is Tier.NAMESPACE or self.pool.facts.get("has_own_uids"):
            return 0
        if self._calls_until_refresh <= 0:
            self._task_allowance = tasks_of_user(
                os.getuid(),
                fork_servers=self.pool.pids,
                most=self.config.maximum_limits.threads,
            )
            self._calls_until_refresh = _TASKS_REFRESH_CALLS
        self._calls_until_refresh -= 1
        return self._task_allowance

    async def run(self, program: Program, client: str) -> tuple[Outcome, float]:
        """Outcome and seconds in the queue. Cancelling kills the execution."""
        async with self.queue.admitted(client) as queued_s, self.pool.child(program.code) as child:
            job = job_limits(program.limits, self.task_allowance()) | {
                "code": program.code,
                "stdin": program.stdin,
                "seed": program.seed,
                "echo": program.echo,
                "files": {
                    name: base64.b64encode(content).decode()
                    for name, content in program.files.items()
                },
                "fetch_files": program.fetch_files,
            }
            outcome = await run_once(child, job, program.limits, self.config.flood_bytes)
            return outcome, queued_s
