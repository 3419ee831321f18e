"""The documents' commands, gin files and gin names, read from their text: each exists and parses.

That they run is for tests of the entry points and for `python -m docs.nightly`, which has a rule for
every one of them.
"""

import ast
import pathlib

import pytest
from helpers.parsing import check_parses

from docs import nightly
from docs.commands import (
    classes,
    commands,
    documents,
    gin_files,
    gin_names,
    is_gin_file,
    name_of,
)
from jaxtool.config import loader


def text_of(document: pathlib.Path) -> str:
    return document.read_text(encoding="utf-8")


def imported_tests(file: pathlib.Path) -> set[str]:
    """Modules that lie in tests, which only pytest puts on the path."""
    tests = {"helpers", "tests"}
    nodes = list(ast.walk(ast.parse(text_of(file))))
    names = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return tests & {name.split(".")[0] for name in names}


def test_what_a_checkout_runs_imports_nothing_of_the_tests(tmp_path):
    folders = ("benchmarks", "docs", "experiments", "jaxtool", "sandbox_server", "search_server")
    files = [file for f in folders for file in (loader.REPOSITORY_ROOT / f).rglob("*.py")]
    assert {str(file): imported_tests(file) for file in files if imported_tests(file)} == {}
    (tmp_path / "one.py").write_text("import os\nfrom helpers.fakes import SlowTool\n")
    assert imported_tests(tmp_path / "one.py") == {"helpers"}


ALL = [command for file in documents() for command in commands(text_of(file), name_of(file))]


@pytest.mark.parametrize("command", dict.fromkeys(ALL), ids=str)
def test_command_parses_and_its_gin_builds(command, monkeypatch):
    flags = check_parses(command, monkeypatch)
    files = getattr(flags, "gin_file", None) or []
    if command.is_whole and files and all(is_gin_file(file) for file in files):  # not RUN.gin
        loader.load(loader.target_of(files[0]), files=files, params=flags.gin_param)


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_gin_files_of_a_document_exist(document):
    missing = [name for name in sorted(gin_files(text_of(document))) if not is_gin_file(name)]
    assert not missing, f"{name_of(document)} names gin files that do not exist: {missing}"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_gin_names_of_a_document_exist(document):
    known = classes()
    missing = [
        f"{owner}.{field}"
        for owner, field in sorted(gin_names(text_of(document)))
        if field not in known.get(owner, ())
    ]
    assert not missing, f"{name_of(document)} names what no class has: {missing}"


def test_every_command_is_run_at_night_or_by_a_test():
    unknown = [str(command) for command in ALL if nightly.rule_of(command) is None]
    assert not unknown, f"docs/nightly.py has no rule for {unknown}: say how to run it small"
    for rule in nightly.RULES:
        assert not rule.instead or (loader.REPOSITORY_ROOT / rule.instead).is_file(), rule


def test_the_documents_name_commands():
    assert {"experiments.quickstart", "experiments.train", "sandbox_server"} <= {
        command.module for command in ALL if command.is_whole
    }


WRONG = """
```bash
# a comment
python -m experiments.train --gin_file gin_configs/runs/nothing.gin \\
    --workdir runs/mine --gin_parm 'Schedule.steps = 1'  # misspelt
ssh there 'cd x && python -m experiments.quickstart --steps 2'
```
Set `Schedule.sampels`, `EngineConfig.decode_rows` and `Nobody.knows`; `python -m experiments.plan
--topology v5e-8` and `python -m experiments.never`. See `algos/gspo.gin`, `gsop.gin`, `otc_*.gin`.
"""


def test_what_is_wrong_in_a_document_is_found(monkeypatch, capsys):
    train, quickstart, plan, never = commands(WRONG, "wrong.md")
    assert train.arguments[-2:] == ("--gin_parm", "Schedule.steps = 1")
    assert (quickstart.arguments, quickstart.is_whole) == (("--steps", "2"), True)
    assert (plan.arguments, plan.is_whole) == (("--topology", "v5e-8"), False)
    with pytest.raises(AssertionError, match="its parser refuses it"):
        check_parses(train, monkeypatch)
    assert "--gin_parm" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="no such module"):
        check_parses(never, monkeypatch)
    check_parses(plan, monkeypatch)
    names = gin_files(WRONG)
    assert {name for name in names if not is_gin_file(name)} == {
        "gin_configs/runs/nothing.gin",
        "gsop.gin",
    }
    assert {"algos/gspo.gin", "otc_*.gin"} < names
    known = classes()
    missing = {
        (owner, field) for owner, field in gin_names(WRONG) if field not in known.get(owner, ())
    }
    assert missing == {("Schedule", "sampels"), ("Nobody", "knows")}
