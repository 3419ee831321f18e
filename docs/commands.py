"""What the documents of the repository name: commands, gin files and gin names, read from their text.

Covered: `python -m` and `jaxtool` commands in fenced blocks and between backticks, `name.gin`, `Class.field`. Not covered: shell commands of
other kinds, flags that prose names without their command.
"""

import ast
import dataclasses
import functools
import pathlib
import re
import shlex

from jaxtool.cli import dispatch
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.config.record import RECORD_NAME

CONFIGS = REPOSITORY_ROOT / "gin_configs"
# `jaxtool NAME` of commands that lie elsewhere than in jaxtool.cli, as `python -m`.
ELSEWHERE = {
    name: module.removesuffix(".__main__") for name, (module, _) in dispatch.ELSEWHERE.items()
}
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_JAXTOOL = re.compile(r"(?:^|(?<=\s)|(?<='))jaxtool (?=[a-z])(\w+)([^\n]*)")
_COMMAND = re.compile(r"(?:^|(?<=\s)|(?<='))python -m ([\w.]+)([^\n]*)")
_GIN_FILE = re.compile(r"[\w./*-]*[\w*]\.gin\b")
_GIN_NAME = re.compile(r"(?<![\w.])([A-Z][a-z]\w*)\.([a-z_]\w*)\b(?!\()")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A `python -m` or `jaxtool` command of a document."""

    document: str
    module: str
    arguments: tuple[str, ...]
    is_whole: bool  # from a fenced block: it can be pasted. Inline ones may leave flags out

    def __str__(self) -> str:
        return f"{self.document}: python -m {shlex.join([self.module, *self.arguments])}"


def documents() -> list[pathlib.Path]:
    names = ("README.md", "CONTRIBUTING.md", "gin_configs/README.md", "sandbox_server/README.md")
    found = [REPOSITORY_ROOT / name for name in names]
    return [*found, *sorted((REPOSITORY_ROOT / "docs").rglob("*.md"))]


def name_of(document: pathlib.Path) -> str:
    return str(document.relative_to(REPOSITORY_ROOT))


def fenced(text: str) -> list[str]:
    """Blocks between ``` lines, with lines that end in a backslash joined."""
    return [re.sub(r"\\\n\s*", "", block) for block in _FENCED.findall(text)]


def inline(text: str) -> list[str]:
    """Code between single backticks; a line break in it is a space."""
    return [" ".join(code.split()) for code in _INLINE.findall(_FENCED.sub("", text))]


def commands(text: str, document: str) -> list[Command]:
    found = []
    for is_whole, pieces in ((True, fenced(text)), (False, inline(text))):
        here = [match for piece in pieces for match in _COMMAND.findall(piece)]
        here += [
            (ELSEWHERE.get(name, f"experiments.{name}"), rest)
            for piece in pieces
            for name, rest in _JAXTOOL.findall(piece)
        ]
        for module, rest in here:
            found.append(
                Command(
                    document=document,
                    module=module.rstrip("."),
                    arguments=_split(rest),
                    is_whole=is_whole,
                )
            )
    return found


def _split(rest: str) -> tuple[str, ...]:
    """Arguments up to a comment, another command, or the end of quotes that began before."""
    if rest.count("'") % 2:
        rest = rest[: rest.rindex("'")]
    words = shlex.split(rest, comments=True)
    ends = [words.index(end) for end in ("&&", "|", ";", ">", "&") if end in words]
    return tuple(words[: min(ends, default=len(words))])


def code_of(text: str) -> list[str]:
    return [*fenced(text), *inline(text)]


def gin_files(text: str) -> set[str]:
    """Names of gin files in code: paths of the repository or of gin_configs, or bare names; `*` stands for any."""
    found = {name for code in code_of(text) for name in _GIN_FILE.findall(code)}
    own = {name for name in found if name.startswith("my_")}  # the reader writes it
    # RUN.gin is any file, and the record is one that a run writes.
    return {n for n in found - own if not pathlib.Path(n).stem.isupper() and n != RECORD_NAME}


def is_gin_file(name: str) -> bool:
    folders = (REPOSITORY_ROOT, CONFIGS)
    if any(list(folder.glob(name)) for folder in folders):
        return True
    return "/" not in name and bool(list(CONFIGS.rglob(name)))


def gin_names(text: str) -> set[tuple[str, str]]:
    """`Class.field` in code: a class of ours and what it has."""
    return {name for code in code_of(text) for name in _GIN_NAME.findall(code)}


@functools.cache
def classes() -> dict[str, set[str]]:
    """Fields, methods and nested names of every class, from the sources; classes of one name together."""
    found: dict[str, set[str]] = {}
    for folder in ("jaxtool", "sandbox_server", "search_server", "experiments", "benchmarks"):
        for file in (REPOSITORY_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).update(_members(node))
    return found


def _members(node: ast.ClassDef) -> set[str]:
    names: set[str] = set()
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            names.add(part.target.id)
        elif isinstance(part, ast.Assign):
            names |= {target.id for target in part.targets if isinstance(target, ast.Name)}
    return names
