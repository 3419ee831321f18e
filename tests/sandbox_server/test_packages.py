"""Packages of the operator's choice in the warm interpreter, and the table of flags that says so."""

import dataclasses
import re
import subprocess
import sys

import pytest
from helpers.sandbox_serving import serving

from sandbox_server import __main__ as command_line
from sandbox_server import flag_help
from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.wire import sandbox_pb2 as pb

_LOAD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sandbox_server.inside import packages
procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
begun = []
try:
    print(packages.load(sys.argv[2:], procfs, begun.append))
except packages.UnfitPackage as error:
    print("unfit after", begun, error)
print(sorted(set(os.environ) & set(packages._WITHOUT_THREADS)))
"""


def _load(folder, *names: str) -> list[str]:
    command = [sys.executable, "-c", _LOAD, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=sys.path[0])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('two\\n lines')", "imported: RuntimeError: two lines; install it"),
        ("def broken(:", "imported: SyntaxError"),
        ("import no_such_module", "imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "imported: SystemExit: 3"),
        ("raise ValueError('x' * 9000)", "imported: ValueError: xxx"),
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "starts a thread when it is imported",
        ),
    ],
)  # fmt: skip
def test_a_package_that_children_cannot_have_is_named_in_one_line(tmp_path, source, words):
    (tmp_path / "fine.py").write_text("__version__ = '1.5'")
    (tmp_path / "unfit.py").write_text(source)
    (tmp_path / "later.py").write_text("")
    said, _ = _load(tmp_path, "fine", "unfit", "later")
    assert said.startswith("unfit after ['fine', 'unfit'] package unfit")
    assert words in said
    assert len(said) < 600


def test_versions_are_those_of_distributions_or_of_the_module(tmp_path):
    (tmp_path / "fine.py").write_text("__version__ = '1.5'")
    (tmp_path / "bare.py").write_text(
        "import threading\nthread = threading.Thread(target=int)\nthread.start()"
    )
    said, left = _load(tmp_path, "fine", "bare", "h11", "json.tool")
    import h11

    assert said == str(
        {"fine": "1.5", "bare": "unknown", "h11": h11.__version__, "json.tool": _json_version()}
    )
    assert left == "[]"


def _json_version() -> str:
    import json

    return json.__version__  # pyright: ignore[reportAttributeAccessIssue]


def test_a_loaded_package_is_listed_and_needs_no_import(tmp_path):
    """networkx, which no execution has without the flag, behind the wall."""
    pytest.importorskip("networkx")
    with serving("--concurrency", "1", "--packages", "networkx,h11") as server:
        info = server.stub.Info(pb.InfoRequest())
        assert {"numpy", "scipy", "sympy", "networkx", "h11"} == set(info.packages)
        [remark] = [one for one in info.remarks if "packages added" in one]
        assert re.fullmatch(r"packages added .+: networkx \S+, h11 \S+: \d+ MiB", remark)
        assert server.execute("import sys\n'networkx' in sys.modules").last_value == "True"
        asked = "import networkx as nx\nnx.shortest_path(nx.path_graph(4), 0, 3)"
        assert server.execute(asked).last_value == "[0, 1, 2, 3]"
        asked = (
            "import threading, os\n[threading.active_count(), 'JE_ARROW_MALLOC_CONF' in os.environ]"
        )
        assert server.execute(asked).last_value == "[1, False]"


def test_a_missing_package_ends_the_start_in_one_line():
    command = [sys.executable, "-m", "sandbox_server", "--packages", "no_such_package"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "package no_such_package cannot be imported" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "packages"),
    [
        ([], ()),
        (["--packages", "pandas"], ("pandas",)),
        (["--packages", "pandas, networkx,pandas"], ("pandas", "networkx")),
        (["--packages", "pandas", "--packages", "networkx,"], ("pandas", "networkx")),
    ],
)
def test_packages_are_given_with_commas_or_one_by_one(flags, packages):
    config = command_line.config_of(command_line._parser().parse_args(flags))
    assert config.packages == packages


@pytest.mark.parametrize("name", ["pandas==2", "./x", "a b", "-x", "a..b", "scikit-learn"])
def test_what_is_no_name_of_a_module_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of a module"):
        ServerConfig(packages=(name,))


def test_every_flag_says_what_it_means_and_in_which_unit():
    settings = {field.name for field in dataclasses.fields(ServerConfig)}
    assert set(flag_help.SETTINGS) == settings - {"default_limits", "maximum_limits"}
    assert set(flag_help.LIMITS) == {field.name for field in dataclasses.fields(LimitSet)}
    for name, (metavar, text) in (flag_help.SETTINGS | flag_help.LIMITS).items():
        assert text, name
        assert (metavar == "BYTES") == name.endswith("_bytes"), name
        assert ("in bytes" in text) == name.endswith("_bytes"), name
        assert (metavar == "SECONDS") == name.endswith("_s"), name
        assert ("seconds" in text) == name.endswith(("_s", "_ms")), name
    shown = command_line._parser().format_help()
    for field in dataclasses.fields(LimitSet):
        assert str(getattr(LimitSet(), field.name)) in shown
    for action in command_line._parser()._actions:
        assert action.help, action.option_strings
