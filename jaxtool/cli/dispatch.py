"""`jaxtool COMMAND`: finds a command by its name and starts it as `python -m experiments.COMMAND` does in a checkout.

Nothing of a command is imported before it is asked for; the list is read from the first lines of the files.
"""

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jaxtool
from jaxtool.cli import entry
from jaxtool.config.places import CONFIGS, DOCS, as_typed

# In the order in which a person needs them; a command that is in no group is shown at the end.
GROUPS = {
    "begin": ("quickstart", "doctor", "new_run", "plan"),
    "train": ("train", "top", "runs", "sweep", "launch_tpu"),
    "evaluate": ("evaluate", "compare", "sample", "report", "reproduce"),
    "data and weights": (
        *("data", "judge", "render", "cold_start_data", "check_demonstrations"),
        *("select_demonstrations", "convert_weights"),
    ),
    "servers": ("sandbox_server", "search_server", "search_build"),
}
# Commands that lie elsewhere: module, function, summary.
ELSEWHERE = {
    "report": ("jaxtool.report.__main__", "The report of runs or evaluations, from their files"),
    "sandbox_server": ("sandbox_server.__main__", "Serves the sandbox for programs of models"),
    "search_server": ("search_server.__main__", "Serves passages for queries"),
    "search_build": ("search_server.build", "Builds the index of a search server"),
}


def commands() -> dict[str, str]:
    """What each command does, by its name: the first sentence of its file."""
    found = {name: summary for name, (_, summary) in ELSEWHERE.items()}
    for folder in importlib.import_module("jaxtool.cli").__path__:
        for module in pkgutil.iter_modules([folder]):
            text = (Path(folder) / f"{module.name}.py").read_text(encoding="utf-8")
            if "\ndef main(" in text and module.name != "dispatch":
                found[module.name] = _first_sentence(text.splitlines()[0])
    return found


def _first_sentence(line: str) -> str:
    """Example: '\"\"\"Runs one gin file: a cold start. A second one resumes.' gives "Runs one gin file: a cold start"."""
    text = line.strip('"')
    ends = [end for mark in (". ", " (docs/") if (end := text.find(mark)) > 0]
    return text[: min(ends, default=len(text))].rstrip(".:")


def help_text() -> str:
    """All commands by group, and where run files and pages lie on this machine."""
    known = commands()
    others = tuple(sorted(set(known) - {name for names in GROUPS.values() for name in names}))
    width = max(map(len, known)) + 2
    lines = [
        f"jaxtool {jaxtool.__version__}: reinforcement learning of tool use in JAX",
        "",
        "usage: jaxtool COMMAND [FLAGS]",
        "       jaxtool COMMAND --help      what a command does, and its flags",
        "       jaxtool --version",
    ]
    for group, names in (GROUPS | {"others": others} if others else GROUPS).items():
        lines += ["", f"{group}:", *(f"  {name:<{width}}{known[name]}" for name in names)]
    lines += ["", f"run files: {CONFIGS}"]
    if DOCS.is_dir():
        lines.append(f"pages that commands name as docs/...: {DOCS}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Starts the command that the first word names, with the others as its flags."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        print(f"jaxtool {jaxtool.__version__}")
        return
    name, known = words[0].replace("-", "_"), commands()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        meant = f"did you mean {near[0]!r}? " if near else ""
        print(
            f"jaxtool: there is no command {words[0]!r}: {meant}jaxtool --help lists all",
            file=sys.stderr,
        )
        sys.exit(2)
    # As `python -m` does: functions of the user's own are found in the working directory.
    if not sys.flags.safe_path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    sys.argv = [f"jaxtool {name}", *words[1:]]
    sys.exit(_main_of(name)())


def _main_of(name: str) -> Callable[[], int | None]:
    if name in ELSEWHERE:
        return vars(importlib.import_module(ELSEWHERE[name][0]))["main"]
    module = importlib.import_module(f"jaxtool.cli.{name}")
    module.__doc__ = as_typed(module.__doc__ or "")  # --help shows it
    return lambda: entry.run(vars(module)["main"])
