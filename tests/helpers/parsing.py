"""Hands a command's arguments to the parser of its own module, and runs nothing else of it."""

import argparse
import importlib
import importlib.util
import inspect
import sys

import pytest

from docs.commands import Command


class Parsed(Exception):
    """Carries what an entry point made of its command line."""


def main_of(module: str):
    """The function with flags that `python -m module` calls; None: it takes none."""
    is_package = importlib.util.find_spec(module).submodule_search_locations is not None
    found = importlib.import_module(f"{module}.__main__" if is_package else module)
    if "main" not in vars(found):
        return None
    has_flags = "argparse" in inspect.getsource(sys.modules[found.main.__module__])
    return found.main if has_flags else None


def check_parses(command: Command, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """What the module's own parser makes of a command."""
    assert importlib.util.find_spec(command.module) is not None, f"{command}: no such module"
    main = main_of(command.module)
    if main is None:
        assert not command.arguments, f"{command}: it takes no flags"
        return None
    parse = argparse.ArgumentParser.parse_args

    def caught(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        if not command.is_whole:  # prose may name a command by a part of it
            for action in self._actions:
                action.required = False
        raise Parsed(parse(self, list(command.arguments)))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", caught)
    with pytest.raises((Parsed, SystemExit)) as end:
        main()
    is_fine = isinstance(end.value, Parsed) or end.value.code == 0  # 0: --help
    assert is_fine, f"{command}: its parser refuses it"
    return end.value.args[0] if isinstance(end.value, Parsed) else None
