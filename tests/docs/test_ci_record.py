"""What .ci/run says that it did not run, from pytest's own records."""

import os
import pathlib
import subprocess
import sys

from jaxtool.config.loader import REPOSITORY_ROOT

TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_real(number):
    {first}

def test_gpu():
    pytest.skip("no GPU")

def test_runs():
    pass
"""


def record(folder: pathlib.Path, name: str, first: str, *flags: str) -> str:
    (folder / "test_some.py").write_text(TESTS.format(first=first))
    (folder / "test_torch.py").write_text(
        f"import pytest\n{first}\n\ndef test_parity():\n    assert 1\n"
        if first == "pass"
        else 'import pytest\npytest.importorskip("no_such_torch", reason="torch is missing")\n'
    )
    (folder / "pytest.ini").write_text("[pytest]\n")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={name}.xml", *flags],
        cwd=folder,
        # Without plugins, which take seconds to import.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        check=False,
    )
    return str(folder / f"{name}.xml")


def say(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(REPOSITORY_ROOT / ".ci" / "not_run.py")
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def test_only_what_no_part_ran_is_listed(tmp_path):
    everything = record(tmp_path, "all", 'pytest.skip("no weights")')
    said = say(everything).stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in said] == [
        "torch is missing",
        "no weights",
        "no GPU",
    ]
    assert said[1].startswith("NOT RUN: 2 tests, such as test_some.test_real[1]: ")
    later = record(tmp_path, "later", "pass", "-k", "real or parity")
    assert say(everything, later, str(tmp_path / "missing.xml")).stdout == (
        "NOT RUN: 1 tests, such as test_some.test_gpu: no GPU\n"
    )


def test_a_part_that_must_run_fails_where_it_was_skipped(tmp_path):
    good = record(tmp_path, "good", "pass", "-k", "real or parity")
    assert say("--require", good).returncode == 0
    skipped = record(tmp_path, "skipped", 'pytest.skip("no weights")', "-k", "real")
    done = say("--require", skipped)
    assert done.returncode == 1
    assert "skipped, but must run here: test_some.test_real[1]: no weights" in done.stdout
    nothing = record(tmp_path, "nothing", "pass", "-k", "never")
    assert say("--require", nothing).returncode == 1
