"""Renderer templates as files: every key is read, known, of its type and one of its choices, or refused.

An error is one line: file, line, key, value, what to write. Covered: what stands in the file. Not
covered: what the values mean together (`tool_format`, `renderer`).
"""

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from jaxtool.formats.base import FORMATS
from jaxtool.judges.answer_format import AnswerStyle
from jaxtool.renderers.tool_format import FENCED, PARSERS, TAGS, ErrorStyle, SeveralCalls

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclasses.dataclass(frozen=True)
class _Key:
    kind: type
    choices: tuple[str, ...] = ()
    is_required: bool = True


_TABLES: Mapping[str, Mapping[str, _Key]] = {
    "messages": {"role": _Key(str, ROLES), "content": _Key(str)},
    "format": {
        "uses_chat_template": _Key(bool),
        "response_prefix": _Key(str),
        "tool_free": _Key(str, is_required=False),
    },
    "tool": {
        "code_open": _Key(str),
        "code_close": _Key(str),
        "fence": _Key(str),
        "observation": _Key(str),
        "max_output_chars": _Key(int),
        "error_style": _Key(str, get_args(ErrorStyle)),
        "empty_output": _Key(str),
        "prelude": _Key(str, is_required=False),
        "parser": _Key(str, PARSERS, is_required=False),
    },
    "calls": {
        "tool": _Key(str),
        "argument": _Key(str),
        "open": _Key(str),
        "close": _Key(str),
        "observation": _Key(str, is_required=False),
    },
    "answer": {
        "close": _Key(str),
        "style": _Key(str, get_args(AnswerStyle)),
        "open": _Key(str, is_required=False),
    },
}
_REPEATED_TABLES = ("messages", "calls")
_REQUIRED_TABLES = ("messages", "format", "answer")
_KINDS = {
    str: ("text", "put it in quotes"),
    bool: ("true or false", "write true or false, without quotes"),
    int: ("a whole number", "write digits, without quotes or point"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateFile:
    """A template whose keys and types are right."""

    name: str
    file: str  # as errors name it
    text: str
    tables: Mapping[str, Any]

    def fault(self, message: str) -> ValueError:
        """An error that begins with the file, and the line of the `table.key` that `message` names."""
        named = re.match(r"(\w+)(?:\[(\d+)\])?(?:\.(\w+))?", message)
        line = _line_of(self.text, named[1], int(named[2] or 0), named[3]) if named else 0
        return ValueError(f"{self.file}{f':{line}' if line else ''}: {message}")


def read_template(name_or_path: str) -> TemplateFile:
    """`templates/<name>.toml`, or the file at a path that ends in .toml.

    Raises:
      FileNotFoundError: no such template.
      ValueError: not TOML in UTF-8, or a key that is unknown, missing, of another type or value.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"no renderer template at {path}")
        raw, name, file = path.read_bytes(), path.stem, str(path)
    else:
        folder = resources.files("jaxtool.renderers") / "templates"
        packaged = folder / f"{name_or_path}.toml"
        if not packaged.is_file():
            known = sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))
            raise FileNotFoundError(f"no renderer template {name_or_path!r}; there are {known}")
        raw, name, file = packaged.read_bytes(), name_or_path, packaged.name
    try:
        text = raw.decode("utf-8-sig")
        tables = tomllib.loads(text.replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 at byte {error.start}: save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: not TOML: {error}") from error
    template = TemplateFile(name=name, file=file, text=text, tables=tables)
    _check(template)
    return template


def _check(template: TemplateFile) -> None:
    tables = template.tables
    for name, table in tables.items():
        if name not in _TABLES:
            raise template.fault(f"{name} is no table of a renderer: {_nearest(name, _TABLES)}")
        if name in _REPEATED_TABLES:
            is_list = isinstance(table, list) and all(isinstance(turn, dict) for turn in table)
            if not is_list or not table:
                raise template.fault(
                    f"{name} = {table!r} must be one table or more: write [[{name}]] over each"
                )
            for number, turn in enumerate(table):
                _check_table(template, f"{name}[{number}]", turn, _TABLES[name])
        elif not isinstance(table, dict):
            raise template.fault(
                f"{name} = {table!r} must be a table: write [{name}] over its keys"
            )
        else:
            _check_table(template, name, table, _keys_of(name, tables))
    for name in _REQUIRED_TABLES:
        if name not in tables:
            raise template.fault(
                f"{name} is missing: add the table, as templates/retool.toml has it"
            )


_CODE_KEYS = ("code_open", "code_close", "fence")
_FORMAT_KEYS: Mapping[str, _Key] = {
    "several_calls": _Key(str, get_args(SeveralCalls), is_required=False),
    "role": _Key(str, is_required=False),
}


def _keys_of(name: str, tables: Mapping[str, Any]) -> Mapping[str, _Key]:
    """The keys of a table. Those of [tool] depend on its parser, and on whether [[calls]] name other tools.

    A parser other than "tags" has no tags to set. Where the policy's end token ends a call, the chat
    template may write the result, and the observation be left out.
    """
    if name != "tool":
        return _TABLES[name]
    table, keys, optional = tables["tool"], dict(_TABLES[name]), set()
    parser = table.get("parser", TAGS)
    if parser in (FENCED, *FORMATS):
        keys = {key: of for key, of in keys.items() if key not in _CODE_KEYS}
    if parser in FORMATS:
        keys |= _FORMAT_KEYS
        if not FORMATS[parser].stop:
            optional.add("observation")
    if "calls" in tables:
        optional.update(_CODE_KEYS)
    return {
        key: dataclasses.replace(of, is_required=of.is_required and key not in optional)
        for key, of in keys.items()
    }


def _check_table(
    template: TemplateFile, name: str, table: Mapping[str, Any], keys: Mapping[str, _Key]
) -> None:
    for key, value in table.items():
        if key not in keys:
            raise template.fault(
                f"{name}.{key} = {value!r} is no key of this table: {_nearest(key, keys)}"
            )
        kind, choices = keys[key].kind, keys[key].choices
        if type(value) is not kind:
            what, remedy = _KINDS[kind]
            raise template.fault(f"{name}.{key} = {value!r} must be {what}: {remedy}")
        if choices and value not in choices:
            raise template.fault(f"{name}.{key} must be {_either(choices)}, got {value!r}")
    for key, spec in keys.items():
        if spec.is_required and key not in table:
            what = _KINDS[spec.kind][0]
            raise template.fault(
                f"{name}.{key} is missing: add it, {_either(spec.choices) or what}"
            )


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join(", ".join(choices).rsplit(", ", 1))


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _line_of(text: str, table: str, number: int, key: str | None) -> int:
    """Line of a key, or of its table's header where the key is not there; 0 if neither is found."""
    header = re.compile(r"\s*\[\[?\s*([\w.]+)\s*\]\]?\s*(?:#.*)?")
    wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=" if key else r"(?!)")
    top = re.compile(rf"\s*[\"']?{re.escape(table)}[\"']?\s*=")
    seen, inside, found = -1, False, 0
    for at, line in enumerate(text.splitlines(), start=1):
        named = header.fullmatch(line)
        if named:
            seen += named[1] == table
            inside = named[1] == table and seen == number
            found = at if inside else found
        elif inside and wanted.match(line):
            return at
        elif seen < 0 and not found and top.match(line):
            found = at
    return found
