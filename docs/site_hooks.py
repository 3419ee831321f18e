"""What mkdocs does with the pages of a checkout: README and its like become pages, links are set, commands and a reference added.

Pages are written for a code host, whose Markdown is wider than mkdocs' in two ways: a list may follow a line of text,
and a link may leave docs/. Both are put right here, so that no page is written for the site. Knows no theme.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Files of the checkout that are pages of the site, by their names there.
PAGES = {
    "index.md": "README.md",
    "gin_configs.md": "gin_configs/README.md",
    "sandbox_server.md": "sandbox_server/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_WITHOUT_REFERENCE = "jaxtool.cli"  # its docstrings are the page of commands
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


def packages() -> list[str]:
    """Those of jaxtool that the reference shows. The servers are used by their protocols, which have pages."""
    folders = sorted(file.parent for file in (ROOT / "jaxtool").glob("*/__init__.py"))
    found = [f"jaxtool.{folder.name}" for folder in folders]
    return [name for name in found if name != _WITHOUT_REFERENCE]


def modules(package: str) -> list[str]:
    """Those that lie in a package itself; its inner packages have pages of their own."""
    files = sorted((ROOT / package.replace(".", "/")).glob("*.py"))
    return [f"{package}.{file.stem}" for file in files if not file.stem.startswith("_")]


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def reference(package: str) -> str:
    """A page with what a package says of itself, then each of its modules."""
    folder = ROOT / package.replace(".", "/")
    lines = [f"# {package}", docstring(folder / "__init__.py")]
    for module in modules(package):
        lines += [f"::: {module}", "    options:", "      heading_level: 2", ""]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def commands() -> str:
    """A page with the docstring of every command: what it does, how it is called, what its JSON holds."""
    from jaxtool.cli import dispatch

    lines = [
        "# Commands",
        "`python -m experiments.NAME` in a checkout, `jaxtool NAME` wherever the wheel is installed. `--help` lists a "
        "command's flags.",
    ]
    for name in dispatch.commands():
        if name not in dispatch.ELSEWHERE:
            text = docstring(ROOT / "jaxtool" / "cli" / f"{name}.py")
            lines += [f"## {name}", f"```text\n{text}\n```"]
    return "\n\n".join(lines)


def target(link: str, folder: str) -> str | None:
    """Where a link of a page of the checkout leads on the site; None where it leads to no page or file of it.

    Args:
      folder: of the page in the checkout, "" for the root.

    Example: "../gin_configs/README.md#x" in "docs" gives "gin_configs.md#x", and "docs/data.md" in "" gives "data.md".
    """
    if "://" in link or link.startswith(("#", "mailto:")):
        return link
    path, mark, anchor = link.partition("#")
    name = posixpath.normpath(posixpath.join(folder, path))
    for page, source in PAGES.items():
        if name == source:
            return f"{page}{mark}{anchor}"
    if name.startswith("docs/") and (ROOT / name).is_file():
        return f"{name.removeprefix('docs/')}{mark}{anchor}"
    return None


def for_site(text: str, folder: str) -> str:
    """A page with its links set, and an empty line before each list that follows a line of text."""

    def linked(match: re.Match[str]) -> str:
        to = target(match[3], folder)
        return match[2] if to is None else f"{match[1]}[{match[2]}]({to})"

    lines: list[str] = []
    is_code = False
    for line in text.splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code:
            before = lines[-1] if lines else ""
            follows = before and not before.startswith((" ", "|", "#")) and not _ITEM.match(before)
            if follows and (_ITEM.match(line) or line.startswith("|")):
                lines.append("")
            line = _LINK.sub(linked, line)
        lines.append(line)
    return "\n".join(lines) + "\n"


def on_config(config: Any) -> Any:
    """Adds the reference to the navigation."""
    config.nav.append({"Reference": [{name: f"reference/{name}.md"} for name in packages()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are not in docs/."""
    from mkdocs.structure.files import File

    made = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in PAGES.items()}
    made["commands.md"] = commands()
    made |= {f"reference/{name}.md": reference(name) for name in packages()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Puts a page of the checkout right for the site; the others are made for it."""
    name = page.file.src_uri
    if name.startswith("reference/") or name == "commands.md":
        return markdown
    return for_site(markdown, posixpath.dirname(PAGES.get(name, f"docs/{name}")))
