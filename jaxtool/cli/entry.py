"""What every entry point shares: flags, allocator, compilation cache, a main whose errors are one line."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from jaxtool.core.libtpu_flags import libtpu_flags, tpu_generation
from jaxtool.core.stopped import Stopped, stop_status

if TYPE_CHECKING:  # the flags need no jax
    from jaxtool.report.page import Report
    from jaxtool.rundir.trackers.spec import TrackerSpec

_ACCELERATOR_DEVICES = ("nvidia[0-9]*", "accel[0-9]*", "vfio/[0-9]*", "kfd")  # of /dev
_DEVICES = Path("/dev")
_GPU_SHARE = 0.9  # of the memory, for all processes together


def allocator() -> str:
    """The GLIBC_TUNABLES of an entry point on a CPU: huge pages, and memory that malloc keeps for the next step.

    XLA's CPU backend takes fresh memory for every large result, and glibc gives it back to the kernel each
    time: page faults were a third of a large update (docs/performance.md). Up to a quarter of the
    machine's memory is kept, in the one heap that can hold a block of any size.
    """
    kept = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    settings = {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": kept}
    return ":".join(f"glibc.malloc.{name}={value}" for name, value in settings.items())


def prepare() -> None:
    """Sets the process up; on a Linux CPU it starts itself anew once, with `allocator`.

    glibc reads the setting only at the start of a process. GLIBC_TUNABLES of the caller's own stay.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    given = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ["LIBTPU_INIT_ARGS"] = libtpu_flags(given, tpu_generation())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jaxtool" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    is_cpu = os.environ.get("JAX_PLATFORMS", "cpu") == "cpu" and not _has_device_file()
    if sys.platform == "linux" and is_cpu and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = allocator()
        os.execv(sys.executable, sys.orig_argv)


def share_accelerator(jobs: int | None) -> int | None:
    """How many processes use this machine's GPU or TPU side by side, one unless asked; None without one.

    Each GPU process may take its share of the memory. Does not start jax: a process that did would
    hold the device that its children need.
    """
    if os.environ.get("JAX_PLATFORMS", "") == "cpu" or not _has_device_file():
        return None
    jobs = jobs or 1
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{_GPU_SHARE / jobs:.3f}")
    return jobs


def _has_device_file() -> bool:
    return any(any(_DEVICES.glob(pattern)) for pattern in _ACCELERATOR_DEVICES)


def add_host_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of a run on several hosts; without them it is one process."""
    group = parser.add_argument_group("several hosts", "the same command on each of them")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="the processes of a TPU pod or a SLURM job find each other",
    )
    group.add_argument("--coordinator", help="host:port of process 0")
    group.add_argument("--num_processes", type=int, help="how many there are")
    group.add_argument("--process_id", type=int, help="of this one, from 0")


def add_tool_flag(parser: argparse.ArgumentParser) -> None:
    """--tool MODULE:FUNCTION, once for each function, and --mcp for servers of tools."""
    parser.add_argument(
        "--tool",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a function of yours that the policy may call as well, see docs/tools.md; may be repeated",
    )
    add_mcp_flag(parser)


def add_mcp_flag(parser: argparse.ArgumentParser) -> None:
    """--mcp COMMAND or --mcp URL, once for each server."""
    parser.add_argument(
        "--mcp",
        action="append",
        default=[],
        metavar="COMMAND_OR_URL",
        help="an MCP server whose tools the policy may call as well, such as 'python my_server.py' or "
        "http://host:8000/mcp; may be repeated",
    )


def add_log_flag(parser: argparse.ArgumentParser) -> None:
    """--log TRACKER, once for each tracker."""
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="TRACKER",
        help="wandb:PROJECT[/NAME], mlflow[:EXPERIMENT[/NAME]] or trackio:PROJECT[/NAME] gets the metrics and "
        "a sample of the trajectories as well, see docs/runs.md; may be repeated",
    )


def trackers_of(arguments: argparse.Namespace) -> tuple[TrackerSpec, ...]:
    """The trackers of --log. Raises ValueError if one cannot be used here, in one line."""
    from jaxtool.rundir.trackers.spec import check_trackers, parse_tracker

    specs = tuple(map(parse_tracker, arguments.log))
    check_trackers(specs)
    return specs


def add_data_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """--data NAME[=FILE], once for each set, see docs/data.md."""
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help=f"{text}; NAME is a layout of docs/data.md, FILE parquet, JSONL, JSON, CSV or a name on the hub; may "
        "be repeated",
    )


def add_training_data_flags(parser: argparse.ArgumentParser) -> None:
    """--data of a run, and --mix for the weights of several."""
    add_data_flag(parser, "problems in place of the run's task, several sets as a mixture")
    parser.add_argument(
        "--mix",
        metavar="NAME=WEIGHT,...",
        help="shares of several --data, as gsm8k=3,mine=1; without it all weigh the same",
    )


def local_path(text: str) -> Path:
    """A place that a command writes, or a run of this machine; a name in a bucket is refused at once."""
    from jaxtool.core.bucket_names import check_local

    try:
        check_local(text, "the path")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def input_path(text: str) -> Path:
    """A file or directory that a command reads; what is in a bucket is copied to this machine first."""
    from jaxtool.core.bucket_files import local_copy

    try:
        return local_copy(text)
    except (ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def weights_name(text: str) -> Path:
    """A name of weights, also one in a bucket; `weights_named` finds them."""
    return Path(text)


def add_gin_flags(parser: argparse.ArgumentParser, what: str, *, is_required: bool = True) -> None:
    """--gin_file, whose help says `what` it is, and --gin_param; both may be repeated."""
    parser.add_argument(
        "--gin_file",
        action="append",
        default=[],
        required=is_required,
        help=f"{what}; further ones are overlays: they win over it",
    )
    parser.add_argument(
        "--gin_param", action="append", default=[], help="one binding, may be repeated"
    )


def add_json_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """--json PATH, refused at once where the file could not be written at the end."""
    parser.add_argument("--json", type=writable, help=text, metavar="PATH")


def add_figure_flags(parser: argparse.ArgumentParser) -> None:
    """--svg, --csv and --latex DIR: every chart and every table as files, see docs/compare.md."""
    group = parser.add_argument_group("figures as files", "directories; they are made")
    group.add_argument("--svg", type=writable_folder, metavar="DIR", help="every chart as SVG")
    group.add_argument("--csv", type=writable_folder, metavar="DIR", help="every table as CSV")
    group.add_argument("--latex", type=writable_folder, metavar="DIR", help="every table as LaTeX")


def write_figures(arguments: argparse.Namespace, report: Report) -> None:
    """Writes what `add_figure_flags` asks for, and says so."""
    folders = {kind: getattr(arguments, kind) for kind in ("svg", "csv", "latex")}
    if any(folders.values()):
        from jaxtool.report.figure_files import write_figures as write

        files = write(report, **folders)
        print(
            f"{len(files)} files in {', '.join(dict.fromkeys(map(str, filter(None, folders.values()))))}"
        )


def writable_folder(text: str) -> Path:
    """A directory that a command writes into at its end, refused at once where that could not be."""
    path = local_path(text)
    there = next(part for part in (path, *path.absolute().parents) if part.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}: {there} is no directory: choose another place")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: choose another place")
    return path


def writable(text: str) -> Path:
    """The path of a file that a command writes at its end, refused at once where that could not be."""
    path = local_path(text)
    folder = path.absolute().parent
    problem = None
    if path.is_dir():
        problem = "is a directory: name a file in it"
    elif not folder.is_dir():
        problem = f"is in {folder}, which is no directory: make it first"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        problem = "cannot be written: choose another place"
    if problem is not None:
        raise argparse.ArgumentTypeError(f"{text!r} {problem}")
    return path


def join_hosts(arguments: argparse.Namespace) -> None:
    """Before anything else of jax is used."""
    from jaxtool.parallel import hosts

    hosts.start(
        coordinator=arguments.coordinator,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
        finds_others=arguments.distributed,
    )


def run(main: Callable[[], None]) -> None:
    """Runs an entry point; what the user can mend ends in one line and not in a traceback."""
    prepare()
    try:
        main()
    except Stopped:
        if _is_one_of_several():
            from jaxtool.parallel import hosts

            hosts.leave(stop_status())
        raise
    except KeyboardInterrupt:
        _exit("\nstopped; the same command resumes from the last checkpoint")
    except ModuleNotFoundError as error:
        if error.name in ("jax", "flax", "grain", "gin"):
            _exit(f"{error.name} is not installed: pip install -e '.[cpu]' (or [tpu], [cuda])")
        raise
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("JAXTOOL_TRACEBACK"):
            _raise(error)
        _exit(f"error: {error}\n(JAXTOOL_TRACEBACK=1 shows where it came from)")
    except Exception as error:
        _raise(error)


def _raise(error: Exception) -> NoReturn:
    """Ends with a traceback; of several hosts the others end too."""
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        raise error
    traceback.print_exception(error)
    _exit(f"error: {type(error).__name__}: {error}")


def _exit(message: str) -> NoReturn:
    """Ends with a message; of several hosts the others end too, because they would wait for this one."""
    from jaxtool.config.places import as_typed

    message = as_typed(message)
    if _is_one_of_several():
        from jaxtool.parallel import hosts

        hosts.end(message)
    sys.exit(message)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()
