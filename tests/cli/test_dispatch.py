"""`jaxtool`: lists its commands without importing them, starts one by its name, and knows where it runs."""

import resource
import subprocess
import sys

import pytest

import jaxtool
from jaxtool.cli import dispatch
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.config.places import as_typed, command_words
from jaxtool.rundir.provenance import command_line


def test_every_command_is_listed_in_one_group():
    listed = [name for names in dispatch.GROUPS.values() for name in names]
    assert sorted(listed) == sorted(dispatch.commands())
    assert len(listed) == len(set(listed))


def test_every_summary_fits_a_line():
    for name, summary in dispatch.commands().items():
        assert 10 < len(summary) <= 125, (name, summary)
        assert f"  {name} " in dispatch.help_text()


def test_the_summary_is_the_first_sentence():
    line = '"""Runs one gin file: a cold start. A second one resumes.'
    assert dispatch._first_sentence(line) == "Runs one gin file: a cold start"
    assert dispatch._first_sentence('"""A sweep of runs (docs/sweeps.md).') == "A sweep of runs"


def test_help_takes_under_a_second_and_imports_no_jax():
    code = (
        "import sys; from jaxtool.cli import dispatch; sys.argv = ['jaxtool', '--help']\n"
        "try: dispatch.main()\n"
        "finally: assert not {'jax', 'numpy', 'gin'} & set(sys.modules), 'imported'"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY_ROOT, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "  train " in done.stdout
    # Of the processor: what others do at the same time does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


@pytest.mark.parametrize(
    ("word", "meant"),
    [("trian", "did you mean 'train'? "), ("evalute", "did you mean 'evaluate'? "), ("zzz", "")],
)
def test_an_unknown_command_is_one_line_with_the_nearest_name(word, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        dispatch.main([word, "--gin_file", "a.gin"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == f"jaxtool: there is no command {word!r}: {meant}jaxtool --help lists all\n"


def test_the_version_is_that_of_the_package(capsys):
    dispatch.main(["--version"])
    assert capsys.readouterr().out == f"jaxtool {jaxtool.__version__}\n"


def test_no_command_shows_all(capsys):
    with pytest.raises(SystemExit) as ended:
        dispatch.main([])
    assert ended.value.code == 2
    assert "usage: jaxtool COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["new_run", "new-run", "report", "search_build"])
def test_a_command_gets_its_flags_and_shows_its_name(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxtool", name, "--no_such_flag"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY_ROOT), "GLIBC_TUNABLES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert name.replace("-", "_").split("_")[-1] in done.stderr.splitlines()[0]
    assert "required" in done.stderr.splitlines()[-1] or "unrecognized" in done.stderr


def test_functions_of_the_working_directory_are_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "argv", ["jaxtool"])
    seen = []
    monkeypatch.setattr(dispatch, "_main_of", lambda name: lambda: seen.append(list(sys.argv)))
    with pytest.raises(SystemExit) as ended:
        dispatch.main(["train", "--seed", "1"])
    assert ended.value.code is None
    assert seen == [["jaxtool train", "--seed", "1"]]
    assert sys.path[0] == str(tmp_path)


def test_commands_are_named_as_they_are_typed_here():
    text = (
        "python -m experiments.train --seed 1; see experiments.doctor and docs/experiments.md; "
        "pip install -e '.[cpu]'"
    )
    assert as_typed(text, is_checkout=True) == text
    assert as_typed(text, is_checkout=False) == (
        "jaxtool train --seed 1; see jaxtool doctor and docs/experiments.md; "
        "pip install 'jaxtool[cpu]'"
    )
    assert command_words("train", is_checkout=True) == ["python", "-m", "experiments.train"]
    assert command_words("train", is_checkout=False) == ["jaxtool", "train"]


def test_the_record_of_a_command_is_what_was_typed():
    script = [sys.orig_argv[0], "/somewhere/bin/jaxtool", "train", "--seed", "1"]
    assert command_line(script) == "jaxtool train --seed 1"
    module = [sys.orig_argv[0], "-m", "experiments.train"]
    assert command_line(module) == "python -m experiments.train"


COMMANDS = sorted(set(dispatch.commands()) - set(dispatch.ELSEWHERE))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_checkout_has_a_door_to_each_command(name):
    text = (REPOSITORY_ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    assert text == DOOR.format(name=name), (
        f"a door is these lines and no more: {DOOR.format(name=name)}"
    )


def test_a_checkout_has_no_other_doors():
    doors = {path.stem for path in (REPOSITORY_ROOT / "experiments").glob("*.py")}
    assert doors == {"__init__", *COMMANDS}


DOOR = '''"""The command {name}; its flags and what it does are in jaxtool/cli/{name}.py."""

from jaxtool.cli.{name} import entry, main

if __name__ == "__main__":
    entry.run(main)
'''
