"""Several processes, one a host, that run the same program: start, shares of the work, what they agree on.

Every process runs the same loop. What only one of them can know (its answers, a time, what a file on
its disk says) is exchanged; whatever follows from that is computed by each, so nothing else has to be
agreed. With one process nothing here starts anything or waits for anybody.

When a process ends before the others, these end too, each with one line (`host_watch`): at once where it was killed or
failed, within a minute where its machine was lost. The same command on all hosts resumes from the last checkpoint.
A process that is told to stop tells the others, and all end as a stop does (`jaxtool.rundir.stopping`).
"""

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import jax

from jaxtool.core.stopped import Stopped
from jaxtool.parallel import wire
from jaxtool.parallel.host_network import HostNetwork, open_network
from jaxtool.parallel.host_watch import HostWatch

COORDINATOR, NUM_PROCESSES, PROCESS_ID = (
    "JAX_COORDINATOR_ADDRESS",
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
_PLACE: list[str] = []  # the coordinator, where it is named: says which network the hosts share

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    finds_others: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes, before anything else of jax is used; does nothing for a single one.

    Args:
      coordinator: host:port of process 0, which every process can reach.
      num_processes: how many there are, the same in each.
      process_id: of this one, 0..num_processes - 1.
      finds_others: ask the TPU's metadata or SLURM (whatever jax detects) for all three.
      environment: stands in for arguments that are None (JAX_COORDINATOR_ADDRESS and so on).

    Raises:
      ValueError: an argument is missing, or out of range.
    """
    coordinator = coordinator or environment.get(COORDINATOR)
    num_processes = _number(num_processes, NUM_PROCESSES, environment)
    process_id = _number(process_id, PROCESS_ID, environment)
    if finds_others:
        if not (coordinator is num_processes is process_id is None):
            raise ValueError(
                "the processes find each other, or are named: give --distributed, or --coordinator, "
                "--num_processes and --process_id"
            )
        _join(None, None, None)
        return
    if num_processes is None and coordinator is None and process_id is None:
        return
    named = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [flag for flag, value in named.items() if value is None]
    if num_processes == 1 and process_id in (None, 0):
        return
    if missing or num_processes is None or process_id is None or coordinator is None:
        raise ValueError(
            f"a run of several processes also needs {' and '.join(missing)} "
            f"(or {COORDINATOR}, {NUM_PROCESSES}, {PROCESS_ID} in the environment)"
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id {process_id} must be in 0..{num_processes - 1} with "
            f"--num_processes {num_processes}"
        )
    if not coordinator.rpartition(":")[2].isdecimal() or ":" not in coordinator:
        raise ValueError(f"--coordinator {coordinator!r} must be host:port of process 0")
    _join(coordinator, num_processes, process_id)


def is_first() -> bool:
    """Whether this process writes the files that all share."""
    return jax.process_index() == 0


def is_single() -> bool:
    return jax.process_count() == 1


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return jax.process_index(), jax.process_count()


def share(items: Sequence[_Item]) -> list[_Item]:
    """This process's part of `items`: each P-th, so that neighbours go to different hosts."""
    return list(items[jax.process_index() :: jax.process_count()])


def exchange(value: _Value) -> list[_Value]:
    """The values of all processes, by process; every process must call it at the same place, from one thread.

    They travel from host to host and never over a device, so programs of the devices may run meanwhile. What may
    travel says `wire`: data of jaxtool, no code.

    Raises:
      Stopped: another process has ended because the run is told to stop.
      RuntimeError: another process has ended its program.
    """
    if is_single():
        return [value]
    try:
        parts = _network().gather(wire.pack(value))
    except RuntimeError:
        if is_left_alone():
            raise Stopped from None
        raise
    return [wire.unpack(part) for part in parts]


def agree(decide: Callable[[], _Value]) -> _Value:
    """What process 0 decides, in every process; an error that the user can mend is raised in all.

    The others wait until process 0 is done, so this also orders what it does to shared files.
    """
    if is_single():
        return decide()
    outcome: Any = None, None
    if is_first():
        try:
            outcome = decide(), None
        except (ValueError, OSError) as error:
            outcome = None, error
    value, problem = exchange(outcome)[0]
    if problem is not None:
        raise problem
    return value


def end(line: str) -> NoReturn:
    """Ends this process of several with a line and status 1; the others end too, and say who was the first."""
    if _network.cache_info().currsize:
        _watch().end(line)
    print(line, file=sys.stderr, flush=True)
    os._exit(1)  # jax would wait for the others first


def tell_stop(seconds: float) -> None:
    """This process is told to stop and will have ended in so many seconds: the others shall stop as well."""
    if not is_single() and _network.cache_info().currsize:
        _watch().stop(seconds)


@contextlib.contextmanager
def hears_stop(call: Callable[[int], object]) -> Iterator[None]:
    """Has `call` made, by another thread, with the number of a process that is told to stop."""
    if is_single():
        yield
        return
    _watch().hear_stop(call)
    try:
        yield
    finally:
        _watch().forget(call)


def is_left_alone() -> bool:
    """Whether the run is told to stop and another process has ended: who waits for it waits in vain."""
    return bool(_watch.cache_info().currsize) and _watch().is_left_alone


def say_end() -> None:
    """The last of a process that is told to stop: the others learn that it ends without an error."""
    if not _network.cache_info().currsize:
        return
    network = _network()
    if _watch().is_stopping:
        network.tell_stop()  # once more: before they hear of the end
    network.leave("")
    if jax.process_index() == 0:  # its coordinator serves the others until they have ended
        network.wait_until_left(_watch().left_s)


def leave(status: int) -> NoReturn:
    """Ends this process of several after a stop that was asked for: jax's own end waits for the others."""
    say_end()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def slurm_devices(environment: Mapping[str, str]) -> list[int] | None:
    """GPUs of a SLURM task that is alone on its node: all of the node; None: what jax makes of it.

    jax gives a task the one device of its number on the node, so a task alone would leave all but the first idle.
    """
    names = ("SLURM_NTASKS", "SLURM_STEP_NUM_NODES", "SLURM_GPUS_ON_NODE")
    if "JAX_LOCAL_DEVICE_IDS" in environment or not all(name in environment for name in names):
        return None
    tasks, nodes, gpus = (int(environment[name]) for name in names)
    return list(range(gpus)) if tasks == nodes else None


def _number(value: int | None, name: str, environment: Mapping[str, str]) -> int | None:
    if value is not None or name not in environment:
        return value
    try:
        return int(environment[name])
    except ValueError:
        raise ValueError(f"{name}={environment[name]!r} must be a whole number") from None


@functools.cache
def _watch() -> HostWatch:
    """Of this process, from its first exchange on."""
    return HostWatch(jax.process_index(), jax.process_count())


@functools.cache
def _network() -> HostNetwork:
    watch = _watch()
    watch.network = network = open_network(watch.on_end, watch.on_stop, *_PLACE[-1:])
    # Before jax's own, which waits for the others: they shall not take the end of this program for its death.
    atexit.register(network.leave, "")
    return network


def _join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is not None:
        _PLACE.append(coordinator)
    # Only CPU devices read it; the default of some versions knows one process only.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, local_device_ids=slurm_devices(os.environ)
        )
    except ValueError as error:
        raise ValueError(
            f"no TPU pod, SLURM job or MPI job found ({error}) "
            "Give --coordinator, --num_processes and --process_id"
        ) from error
