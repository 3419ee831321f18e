"""The strict door for gin files, and the only import of gin in this code base.

gin's parser reads the files, so the language is gin's with dynamic registration. The evaluation is
ours (config_build), because gin 0.5.0 silently accepts a typo'd macro, a scope that nobody opens
and a value of the wrong type, keeps its state in module globals, resolves `include` from the
working directory, and cannot say which line set a value. A test builds the same files with gin
itself and compares. Not supported, on purpose: singletons, constants, decorated configurables,
macros in scopes.

Not covered: flags of the entry points, and what a configuration means.
"""

import dataclasses
import importlib
import importlib.util
import io
import pathlib
import tokenize
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, overload

from gin import config_parser

from jaxtool.config.build import Builder, check_parameter, suggestion
from jaxtool.config.places import REPOSITORY_ROOT
from jaxtool.config.record import operative_config, write_operative_config
from jaxtool.config.syntax import (
    Binding,
    BoundFunction,
    ConfigError,
    MacroUse,
    OldNames,
    Place,
    Reference,
)

__all__ = [
    "BoundFunction",
    "ConfigError",
    "OldNames",
    "REPOSITORY_ROOT",
    "compose",
    "load",
    "operative_config",
    "target_of",
    "write_operative_config",
]

Built = TypeVar("Built")
NO_OLD_NAMES = OldNames()
TARGET_HEADER = "# target:"


@overload
def load(
    target: type[Built],
    *,
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: OldNames = NO_OLD_NAMES,
) -> Built: ...
@overload
def load(
    target: types.FunctionType,
    *,
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: OldNames = NO_OLD_NAMES,
) -> BoundFunction: ...
def load(
    target: Any,
    *,
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: OldNames = NO_OLD_NAMES,
) -> Any:
    """Builds `target` from gin files.

    Args:
      target: a frozen keyword-only dataclass, which is built, or a function, which is returned
        with its arguments bound and not called.
      files: a run file, then overlays, relative to the working directory, to the checkout, or
        without one to what the wheel holds.
        Overlays win over the run file. Two overlays that set one thing differently are refused.
      params: bindings of the command line such as "RlConfig.steps = 5" or "STEPS = 5"; they win
        over all files. Names need only as many of their last parts as make them unambiguous.
      old_names: names of before, refused with those of today.

    Raises:
      ConfigError: on any mistake, in one line that names the place and the remedy.
    """
    return compose(target, files, params, old_names)[0]


def compose(
    target: Any,
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: OldNames = NO_OLD_NAMES,
) -> tuple[Any, Builder]:
    """What `load` returns, and the builder, which knows the origin of each value."""
    bindings = read(files, params, old_names)
    builder = Builder(bindings, old_names)
    own = next((b for b in bindings if b.target == target), None)
    name = own.name if own else f"{target.__module__}.{target.__qualname__}"
    result = builder.build(target, name, own.place if own else Place(file=str(files[-1]), line=1))
    builder.check_all_read()
    return result, builder


def read(
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: OldNames = NO_OLD_NAMES,
) -> list[Binding]:
    """The bindings of gin files and parameters, in the order in which they count; see `load`."""
    if not files:
        raise ConfigError("no gin file given; pass one with --gin_file")
    reader = _Reader(old_names)
    for layer, file in enumerate(files):
        reader.layer = layer
        reader.read_file(_find_file(str(file), [pathlib.Path.cwd(), REPOSITORY_ROOT], None), ())
    for param in params:
        reader.read_param(param)
    return reader.bindings


def target_of(file: str | pathlib.Path, old_names: OldNames = NO_OLD_NAMES) -> Any:
    """What a run file builds: the class or function in its line `# target: module.Name`.

    The file is looked for as `load` does.
    """
    path = _find_file(str(file), [pathlib.Path.cwd(), REPOSITORY_ROOT], None)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith(TARGET_HEADER):
            module, _, name = line.removeprefix(TARGET_HEADER).strip().rpartition(".")
            place = Place(file=_shown(path), line=number)
            old_names.refuse(place, f"{module}.{name}")
            found = vars(_import_module(module, place, old_names))
            if name not in found:
                raise ConfigError(f"{place}: {module} has no {name}{suggestion(name, found)}")
            return found[name]
    raise ConfigError(f"{_shown(path)}:1: add a header line '{TARGET_HEADER} module.Name'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Unresolved:
    """A reference as the parser saw it, before its name is looked up."""

    scoped_name: str
    is_call: bool


class _Delegate(config_parser.ParserDelegate):
    """What gin's parser builds for `@...` and `%...`. Any: gin's base class says None."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return _Unresolved(scoped_name=scoped_configurable_name, is_call=evaluate)

    def macro(self, macro_name: str) -> Any:
        return MacroUse(name=macro_name)


class _NamedText(io.StringIO):
    """Text with the name that gin's parser puts into syntax errors."""

    def __init__(self, text: str, name: str):
        super().__init__(text)
        self.name = name


class _Reader:
    """Reads files and parameters into one list of bindings, in the order in which they count."""

    def __init__(self, old_names: OldNames) -> None:
        self._old_names = old_names
        self.bindings: list[Binding] = []
        self.layer = 0  # of the file that is read
        self.names: dict[Any, str] = {}  # configurable -> name as first written
        # For parameters: full dotted name -> configurable, and what the files import.
        self._qualified: dict[str, Any] = {}
        self._symbols: dict[str, types.ModuleType] = {}
        self._files: dict[pathlib.Path, Place | None] = {}  # file -> where it was included

    def read_file(self, path: pathlib.Path, parents: tuple[pathlib.Path, ...]) -> None:
        shown = _shown(path)
        text = path.read_text(encoding="utf-8")
        symbols: dict[str, types.ModuleType] = {}
        is_dynamic = False
        first: dict[Any, Binding] = {}  # bindings of this file itself
        for statement in _statements(text, shown, Place(file=shown, line=1)):
            place = Place(file=shown, line=statement.location.line_num)
            if isinstance(statement, config_parser.ImportStatement):
                if statement.module == "__gin__.dynamic_registration":
                    is_dynamic = True
                    continue
                module = _imported(statement, place, self._old_names)
                symbols[statement.bound_name()] = module
                self._symbols.setdefault(statement.bound_name(), module)
            elif isinstance(statement, config_parser.IncludeStatement):
                self._include(statement.filename, place, (*parents, path))
                self._check_not_undone(first)
            elif isinstance(statement, config_parser.BindingStatement):
                binding = self._bind(statement, place, lambda n, p: self._resolve(n, symbols, p))
                _check_bound_once(binding, first)
            if not is_dynamic:
                raise ConfigError(
                    f"{place}: the first statement must be 'from __gin__ import "
                    "dynamic_registration'"
                )

    def read_param(self, param: str) -> None:
        place = Place(param=param)
        for statement in _statements(param, place.param, place):
            if not isinstance(statement, config_parser.BindingStatement):
                raise ConfigError(f"{place}: only bindings such as 'NAME = 5' can be parameters")
            self._bind(statement, place, self._resolve_short)

    def _include(self, name: str, place: Place, parents: tuple[pathlib.Path, ...]) -> None:
        path = _find_file(name, [parents[-1].parent, REPOSITORY_ROOT], place)
        if path in parents:
            raise ConfigError(f"{place}: {name} includes itself")
        if path in self._files:
            raise ConfigError(
                f"{place}: {name} is already included at {self._files[path]}, and a second time "
                "would undo what was bound in between; delete one of them"
            )
        self._files[path] = place
        self.read_file(path, parents)

    def _check_not_undone(self, first: dict[Any, Binding]) -> None:
        latest = {binding.key: binding for binding in self.bindings}
        for key, binding in first.items():
            if latest[key] is not binding:
                raise ConfigError(
                    f"{binding.place}: {binding} is overridden by the later include "
                    f"({latest[key].place}); move the include above it"
                )

    def _bind(
        self,
        statement: config_parser.BindingStatement,
        place: Place,
        resolve: Callable[[str, Place], Any],
    ) -> Binding:
        scope = tuple(filter(None, statement.scope.split("/")))
        if not statement.arg_name and (scope or statement.selector == "value"):
            raise ConfigError(f"{place}: a macro has no scope; write NAME = ...")
        target = resolve(statement.selector, place) if statement.arg_name else None
        binding = Binding(
            scope=scope,
            name=statement.selector,
            parameter=statement.arg_name,
            target=target,
            value=self._resolved(statement.value, place, resolve),
            place=place,
            layer=self.layer,
        )
        if target is not None:
            check_parameter(binding, self._old_names)
            self._note(target, statement.selector)
        self.bindings.append(binding)
        return binding

    def _resolved(self, value: Any, place: Place, resolve: Callable[[str, Place], Any]) -> Any:
        """`value` with the names of its references looked up."""
        if isinstance(value, _Unresolved):
            *scope, name = value.scoped_name.split("/")
            target = resolve(name, place)
            self._note(target, name)
            return Reference(scope=tuple(scope), name=name, target=target, is_call=value.is_call)
        if isinstance(value, dict):
            pairs = value.items()
            return {
                self._resolved(k, place, resolve): self._resolved(v, place, resolve)
                for k, v in pairs
            }
        if isinstance(value, list | tuple):
            return type(value)(self._resolved(item, place, resolve) for item in value)
        return value

    def _note(self, target: Any, name: str) -> None:
        self.names.setdefault(target, name)
        self._qualified[f"{target.__module__}.{target.__qualname__}"] = target

    def _resolve_short(self, name: str, place: Place) -> Any:
        """Looks a parameter's name up: as in the files, by its last parts, by its full path."""
        written = [target for target, known in self.names.items() if known == name]
        if len(written) == 1:
            return written[0]
        matches = [q for q in self._qualified if f".{q}".endswith(f".{name}")]
        if len(matches) > 1:
            raise ConfigError(f"{place}: {name} is ambiguous; write one of {', '.join(matches)}")
        if matches:
            return self._qualified[matches[0]]
        first = name.split(".")[0]
        if "." in name and first in self._symbols:
            return self._resolve(name, self._symbols, place)
        self._old_names.refuse(place, name, name.rpartition(".")[2])
        if "." in name and importlib.util.find_spec(first):
            _import_module(name.rpartition(".")[0], place, self._old_names)
            symbols = {first: _import_module(first, place, self._old_names)}
            return self._resolve(name, symbols, place)
        known = {".".join(q.split(".")[-name.count(".") - 1 :]) for q in self._qualified}
        hint = suggestion(name, known) or "; write its full path, module included"
        raise ConfigError(f"{place}: no file names {name}{hint}")

    def _resolve(self, name: str, symbols: dict[str, types.ModuleType], place: Place) -> Any:
        first, *rest = name.split(".")
        if first not in symbols:
            hint = suggestion(first, symbols) or f"; add an import of {first} to this file"
            raise ConfigError(f"{place}: {first} of {name} is not imported{hint}")
        found: Any = symbols[first]
        for depth, part in enumerate(rest, 1):
            if part not in dir(found):
                self._old_names.refuse(place, part)
                owner = ".".join(name.split(".")[:depth])
                raise ConfigError(f"{place}: {owner} has no {part}{suggestion(part, dir(found))}")
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(
                f"{place}: {name} is no class or function; bind or reference one of those"
            )
        return found


def _statements(text: str, shown: str, place: Place) -> Iterator[Any]:
    """Statements of gin's parser; its errors as one line."""
    try:
        yield from config_parser.ConfigParser(_NamedText(text, shown), _Delegate())
    except (SyntaxError, tokenize.TokenError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else error.args[1][0]
        where = place if place.param else Place(file=shown, line=line or 1)
        reason = " ".join(str(error.args[0]).split())
        hint = ""
        if "Failed to parse token" in reason or "Unable to parse value" in reason:
            hint = "; a value is a literal, @reference or %MACRO, and strings need quotes"
        raise ConfigError(f"{where}: {reason}{hint}") from error


def _check_bound_once(binding: Binding, first: dict[Any, Binding]) -> None:
    earlier = first.setdefault(binding.key, binding)
    if earlier is not binding:
        raise ConfigError(
            f"{binding.place}: {binding} is already bound at {earlier.place}; delete one of them"
        )


def _imported(
    statement: config_parser.ImportStatement, place: Place, old_names: OldNames
) -> types.ModuleType:
    """The module that the statement binds a name to."""
    if statement.module.startswith("__gin__."):
        raise ConfigError(f"{place}: unknown feature {statement.module}; use dynamic_registration")
    module = _import_module(statement.module, place, old_names)
    if statement.is_from or statement.alias:
        return module
    return _import_module(statement.module.split(".")[0], place, old_names)


def _import_module(name: str, place: Place, old_names: OldNames) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        old_names.refuse(place, name)
        raise ConfigError(
            f"{place}: cannot import the module {name} ({error}); import modules, not their contents"
        ) from error


def _find_file(name: str, folders: Sequence[pathlib.Path], place: Place | None) -> pathlib.Path:
    for folder in folders:
        path = (folder / name).resolve()
        if path.is_file():
            return path
    where = f"{place}: include" if place else "--gin_file"
    looked = " or ".join(str(folder) for folder in folders)
    raise ConfigError(f"{where} {name}: no such file in {looked}; correct the path")


def _shown(path: pathlib.Path) -> str:
    """Path as shown to people: short inside the working directory or the repository."""
    path = path.resolve()
    for folder in (pathlib.Path.cwd(), REPOSITORY_ROOT):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)
