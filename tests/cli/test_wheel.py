"""Wheel and source distribution: what they hold, the same bytes twice, and a wheel that works outside of a checkout.

They are built by the installed setuptools and installed without an index. That the whole quickstart runs from a wheel
is not covered here.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import jaxtool
from jaxtool.cluster.shipping import files_of
from jaxtool.config.loader import REPOSITORY_ROOT

PACKAGES = ("jaxtool", "sandbox_server", "search_server")
NAME = f"jaxtool-{jaxtool.__version__}"
_SPREAD_S = 12345  # between the times of files in the two copies


def names_of_files():
    return [str(file.relative_to(REPOSITORY_ROOT)) for file in files_of(REPOSITORY_ROOT)]


def build(folder, kinds, *, age_s, umask):
    """Builds in a copy of the checkout whose files are `age_s` older; returns where the results lie."""
    copy, out = folder / "copy", folder / "out"
    for name in names_of_files():
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY_ROOT / name, target)
        os.utime(target, (1_600_000_000 - age_s, 1_600_000_000 - age_s))
    calls = "; ".join(f"build_meta.build_{kind}({str(out)!r})" for kind in kinds)
    done = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; {calls}"],
        cwd=copy,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
        umask=umask,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77", reason="nothing here builds a wheel")
    return build(tmp_path_factory.mktemp("one"), ("sdist", "wheel"), age_s=0, umask=0o022)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment that holds the wheel, and sees what the wheel needs in the environment of the tests."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    # A .pth file names the folder alone, so that an editable install in it stays unseen.
    (site / "needs.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install"]
    wheel = str(next(built.glob("*.whl")))
    flags = [
        *("--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"),
        "--ignore-installed",  # the editable install of the tests does not count
    ]
    subprocess.run([*pip, *flags, wheel], check=True, env=without_paths())
    return home


def without_paths():
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}


def start(installed, folder, *words):
    return subprocess.run(
        [str(installed / "bin" / words[0]), *words[1:]],
        cwd=folder,
        env=without_paths(),
        capture_output=True,
        text=True,
    )


def test_an_install_of_a_checkout_finds_its_doors_too(tmp_path, built):
    out = build(tmp_path, ("editable",), age_s=0, umask=0o022)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        (finder,) = [name for name in wheel.namelist() if name.endswith("finder.py")]
        mapped = re.search(r"^MAPPING.*?= (\{.*\})$", wheel.read(finder).decode(), re.MULTILINE)
    assert mapped is not None
    assert set(ast.literal_eval(mapped[1])) == {*PACKAGES, "experiments"}


def test_two_source_distributions_have_the_same_bytes(built, tmp_path):
    again = build(tmp_path, ("sdist",), age_s=_SPREAD_S, umask=0o077)
    one, other = (folder / f"{NAME}.tar.gz" for folder in (built, again))
    assert one.read_bytes() == other.read_bytes()


def test_a_source_distribution_is_the_checkout(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as tar:
        held = {entry.name.removeprefix(f"{NAME}/") for entry in tar if entry.isfile()}
    missing = set(names_of_files()) - held
    assert missing <= {".gitignore"}
    made = {name for name in held if name.startswith("jaxtool.egg-info/")}
    assert held - set(names_of_files()) - made == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_holds_its_packages_whole_and_nothing_else(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    of_packages = {name for name in names_of_files() if name.split("/")[0] in PACKAGES}
    inside = {
        f"jaxtool/{name}"
        for name in names_of_files()
        if (name.startswith("gin_configs/") and name.endswith((".gin", ".md")))
        or (name.startswith("docs/") and name.endswith(".md") and name.count("/") == 1)
        or (name.startswith("docs/plans/") and name.endswith(".json"))
    }
    assert len(inside) > 200
    assert of_packages - held == {"sandbox_server/README.md"}
    assert held - of_packages == inside
    assert {name.split("/")[0] for name in held} == set(PACKAGES)


def test_an_installed_wheel_is_found_and_no_checkout(installed, tmp_path):
    code = (
        "import importlib.util as u, jaxtool; print(jaxtool.__file__); "
        "print([n for n in ('experiments', 'docs', 'benchmarks', 'tests') if u.find_spec(n)])"
    )
    done = start(installed, tmp_path, "python", "-c", code)
    place, others = done.stdout.splitlines()
    assert Path(place).is_relative_to(installed)
    assert others == "[]"
    assert start(installed, tmp_path, "jaxtool", "--version").stdout == (
        f"jaxtool {jaxtool.__version__}\n"
    )


def test_an_installed_wheel_reads_its_gin_files_and_one_of_the_reader(installed, tmp_path):
    (tmp_path / "mine.gin").write_text(
        "# target: jaxtool.train.rl_config.RlConfig\nfrom __gin__ import dynamic_registration\n"
        'include "gin_configs/runs/quickstart_otc_grpo.gin"\nSTEPS = 3\n'
    )
    done = start(
        installed,
        tmp_path,
        *("jaxtool", "train", "--gin_file", "mine.gin", "--print_config", "--json", "found.json"),
    )
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "found.json").read_text())["values"]
    steps = values["rl_config.Schedule.steps"]
    assert steps["value"] == "3"
    assert steps["from"].startswith("gin_configs/runs/quickstart_otc_grpo.gin:")
    assert steps["from"].endswith("(STEPS of mine.gin:4)")


def test_an_installed_wheel_names_its_commands_as_they_are_typed(installed, tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    done = start(installed, tmp_path, "jaxtool", "compare", "nowhere:base", "nowhere:last")
    assert done.returncode == 1
    assert "jaxtool evaluate" in done.stderr
    assert "experiments" not in done.stderr
    shown = start(installed, tmp_path, "jaxtool", "train", "--help").stdout
    assert "jaxtool train --gin_file" in shown
    assert "experiments.train" not in shown


def test_a_tpu_launch_from_a_wheel_is_refused_in_one_line(installed, tmp_path):
    flags = [
        "--type",
        "v6e-16",
        "--zone",
        "us-east5-b",
        "--project",
        "p",
        "--bucket",
        "gs://b",
        "--dry_run",
    ]
    done = start(installed, tmp_path, "jaxtool", "launch_tpu", "gin_configs/runs/x.gin", *flags)
    assert done.returncode == 1
    assert done.stderr.startswith("error: launch_tpu sends a checkout to the slice")
