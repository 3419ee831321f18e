"""`python -m sandbox_server`: flags, logging, one line with the address when serving."""

import argparse
import asyncio
import dataclasses
import os
import pathlib
import select
import shutil
import sys
from typing import Any, NoReturn

from sandbox_server import flag_help
from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import logs, selftest, server
from sandbox_server.front.execution import BrokenChild
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.probe import NoIsolation

_TROUBLES = (NoIsolation, ForkServerGone, BrokenChild, RuntimeError, OSError, ValueError)
_LIMIT_KINDS = {"default_limits": "default", "maximum_limits": "maximum"}
_RENAMED = {"--slots": "--concurrency", "--memo-bytes": "--result-cache-bytes"}


class _Renamed(argparse.Action):
    """An old flag: its `const` is what it is called now."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.exit(2, f"sandbox_server: {self.option_strings[0]} is now called {self.const}\n")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the flags in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sandbox_server: {message}; --help lists the flags\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sandbox_server", description=__doc__)
    parser.add_argument(
        "--ready-file", metavar="PATH", help="written with the address once serving"
    )
    parser.add_argument(
        "--exit-on-stdin-eof", action="store_true", help="end when the starter's pipe closes"
    )
    parser.add_argument(
        "--remove-after-starter",
        metavar="DIR",
        help="remove this directory at the end if the starter's pipe has closed: it cannot any more",
    )
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning"],
        help="least level of the lines of JSON on standard error (warning)",
    )
    parser.add_argument(
        "--selftest",
        action="store_true",
        help="print tier, limits, versions, speed and whether each attack is contained, then end",
    )
    parser.add_argument(
        "--attacks", default="", metavar="DIR", help="more attack files for --selftest"
    )
    parser.add_argument(
        "--json", default="", metavar="PATH", help="findings of --selftest, in full"
    )
    defaults = ServerConfig()
    for field in dataclasses.fields(ServerConfig):
        flag = "--" + field.name.replace("_", "-")
        default = getattr(defaults, field.name)
        said = flag_help.lookup(flag_help.SETTINGS, field.name, default)
        if field.name in _LIMIT_KINDS:
            kind = _LIMIT_KINDS[field.name]
            for limit in dataclasses.fields(LimitSet):
                limit_flag = f"--{kind}-{limit.name.replace('_', '-')}"
                said = flag_help.limit(kind, limit.name, getattr(default, limit.name))
                parser.add_argument(limit_flag, type=int, **said)
        elif field.type is bool:
            parser.add_argument(flag, action="store_true", default=None, **said)
        elif field.name == "packages":
            parser.add_argument(flag, type=_names, action="extend", **said)
        else:
            kind = field.type if isinstance(field.type, type) else str
            parser.add_argument(flag, type=kind, default=None, **said)
    for old, new in _RENAMED.items():
        parser.add_argument(old, action=_Renamed, nargs="?", const=new, help=argparse.SUPPRESS)
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def config_of(flags: argparse.Namespace) -> ServerConfig:
    """Settings from parsed flags; what was not given keeps its default."""
    given = {name: value for name, value in vars(flags).items() if value is not None}
    names = {field.name for field in dataclasses.fields(ServerConfig)}
    settings = {name: value for name, value in given.items() if name in names}
    if "packages" in settings:
        settings["packages"] = tuple(dict.fromkeys(settings["packages"]))
    for kind in _LIMIT_KINDS:
        settings[kind] = _limits_of(kind, given)
    return ServerConfig(**settings)


def _limits_of(kind: str, given: dict[str, Any]) -> LimitSet:
    """`default_limits` or `maximum_limits`: what was not given is as in ServerConfig."""
    limits = {
        field.name: given[flag]
        for field in dataclasses.fields(LimitSet)
        if (flag := f"{_LIMIT_KINDS[kind]}_{field.name}") in given
    }
    return dataclasses.replace(getattr(ServerConfig, kind), **limits)


def main() -> int:
    flags = _parser().parse_args()
    logs.set_up(flags.log_level)
    is_serving = False

    def announce(address: str, http_url: str) -> None:
        nonlocal is_serving
        is_serving = True
        print(f"serving on {address}" + (f" and {http_url}" if http_url else ""), flush=True)
        if flags.ready_file:
            path = pathlib.Path(flags.ready_file)
            part = path.with_name(path.name + ".part")
            part.write_text(address, "utf-8")
            os.replace(part, path)

    try:
        config = config_of(flags)
        _check_folder("--ready-file", flags.ready_file)
        _check_folder("--json", flags.json)
        if flags.selftest:
            return asyncio.run(selftest.run(config, flags.attacks, flags.json))
        asyncio.run(server.serve(config, announce, flags.exit_on_stdin_eof))
    except _TROUBLES as error:
        print(f"sandbox_server: {_one_line(error)}", file=sys.stderr)
        return 1 if is_serving else 2
    finally:
        if flags.remove_after_starter and _has_no_starter():
            shutil.rmtree(flags.remove_after_starter, ignore_errors=True)
    return 0


def _check_folder(flag: str, path: str | None) -> None:
    if path and not pathlib.Path(path).parent.is_dir():
        raise ValueError(f"{flag} {path}: there is no directory {pathlib.Path(path).parent}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _has_no_starter() -> bool:
    """Whether the other end of the pipe at standard input is closed."""
    readable, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1)


if __name__ == "__main__":
    sys.exit(main())
