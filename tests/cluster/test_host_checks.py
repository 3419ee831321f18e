"""Every kind of failure of a host gives its status and its remedy."""

import importlib.metadata
import os
import resource

import pytest

from jaxtool.cluster import host_checks
from jaxtool.cluster.findings import Check, Finding, as_json, run_checks

WANTED = (
    'jax>=0.10; extra == "cpu"',
    'flax>=0.12.8; extra == "cpu"',
    'mcp>=2.3; extra == "mcp"',
)
VERSIONS = {"jax": "0.10.2", "jaxlib": "0.10.1", "flax": "0.12.9", "libtpu": "0.0.50"}


def versions(**changed):
    found = {**VERSIONS, **changed}

    def version_of(name):
        if found.get(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    return version_of


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 11, 7), "ok"), ((3, 12, 0), "ok"), ((3, 10, 4), "fail"), ((3, 14, 0), "warn")],
)
def test_python_is_one_of_those_that_are_tested(version, status):
    found = host_checks.check_python(version)
    assert found.status == status
    assert found.text == ".".join(map(str, version))


def test_versions_are_those_of_the_extra():
    found = host_checks.check_versions("cpu", WANTED, versions())
    assert (found.status, found.remedy) == ("ok", "")
    assert "3 packages of [cpu]" in found.text  # jaxlib with the two that are named
    assert "jax 0.10.2" in found.text


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"flax": "0.12.7"}, "flax is 0.12.7, not >=0.12.8"),
        ({"flax": None}, "flax is not installed"),
        ({"jaxlib": None}, "jaxlib is not installed"),
        ({"jaxlib": "0.11.0"}, "jax 0.10.2 and jaxlib 0.11.0 are of two releases"),
    ],
    ids=["old", "none", "no jaxlib", "two releases"],
)
def test_a_wrong_version_is_named_with_the_command_that_mends_it(changed, text):
    found = host_checks.check_versions("cpu", WANTED, versions(**changed))
    assert (found.status, found.text, found.remedy) == ("fail", text, "pip install -e '.[cpu]'")


def test_a_tpu_host_needs_libtpu():
    wanted = [line.replace('"cpu"', '"tpu"') for line in WANTED]
    assert "libtpu 0.0.50" in host_checks.check_versions("tpu", wanted, versions()).text
    found = host_checks.check_versions("tpu", wanted, versions(libtpu=None))
    assert (found.status, found.text) == ("fail", "libtpu is not installed")


def test_this_installation_has_the_versions_that_setup_py_wants():
    assert host_checks.check_versions("cpu").status == "ok"


@pytest.mark.parametrize(("gib", "status"), [(64.0, "ok"), (5.0, "warn"), (1.5, "fail")])
def test_memory_that_is_short_is_said(gib, status):
    found = host_checks.check_memory(gib)
    assert (found.name, found.status, found.text) == ("memory", status, f"{gib} GiB are free")


def test_the_control_group_limits_memory(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n")
    assert host_checks.available_memory_gib(tmp_path) == 8.0
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert host_checks.available_memory_gib(tmp_path) == 8.0
    (group / "memory.max").write_text(f"{4 * 2**30}\n")
    (group / "memory.current").write_text(f"{2**30}\n")
    assert host_checks.available_memory_gib(tmp_path) == 3.0


@pytest.fixture
def disk(monkeypatch):
    """A disk with room, which writes 500 MiB/s and can all that a run asks; the values may be changed."""
    has = {"free": 500.0, "speed": 500.0, "lacks": []}
    usage = type("Usage", (), {"free": property(lambda self: has["free"] * 2**30)})
    monkeypatch.setattr(host_checks.shutil, "disk_usage", lambda folder: usage())
    monkeypatch.setattr(host_checks, "_write_speed", lambda folder: has["speed"])
    monkeypatch.setattr(host_checks, "_lacks", lambda folder: has["lacks"])
    return has


@pytest.mark.parametrize(
    ("has", "status", "text"),
    [
        ({}, "ok", "500 GiB free, writes 500 MiB/s"),
        ({"free": 1.0}, "fail", "1 GiB free"),
        ({"free": 10.0}, "warn", "10 GiB free"),
        ({"speed": 20.0}, "warn", "writes 20 MiB/s"),
        ({"lacks": ["locks"]}, "warn", "it has no locks"),
        ({"lacks": ["locks", "renames"]}, "fail", "it has no locks and no renames"),
    ],
    ids=["right", "full", "short", "slow", "no locks", "no renames"],
)
def test_a_disk_that_is_short_slow_or_weak_is_said(disk, tmp_path, has, status, text):
    disk.update(has)
    found = host_checks.check_disk(tmp_path / "runs" / "mine", 20.0)
    assert found.status == status
    assert found.text.startswith(f"{tmp_path}: ")
    assert text in found.text
    assert list(tmp_path.iterdir()) == []


def test_what_a_disk_can_is_tried_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(host_checks, "_PROBE_MIB", 1)
    found = host_checks.check_disk(tmp_path / "runs", 0.001)
    assert "MiB/s" in found.text
    assert "it has no" not in found.text
    assert list(tmp_path.iterdir()) == []

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(host_checks.os, "rename", refuse)
    found = host_checks.check_disk(tmp_path / "runs", 0.001)
    assert (found.status, "no renames" in found.text) == ("fail", True)


def test_a_bucket_is_no_work_directory():
    with pytest.raises(ValueError, match="mount the bucket"):
        host_checks.check_disk(os.path.join("gs://bucket", "run"), 1.0)


@pytest.mark.parametrize(
    ("now", "state", "status", "text"),
    [
        (2e9, (True, 0.025), "ok", "2033-05-18 03:33:20 UTC, within 25 ms"),
        (2e9, (False, 16.0), "warn", "nothing keeps it in step"),
        (1e9, (True, 0.025), "fail", "is 900000000 s before the newest file"),
    ],
    ids=["right", "alone", "behind"],
)
def test_a_clock_that_is_behind_or_alone_is_said(now, state, status, text):
    found = host_checks.check_clock(now, newest=1.9e9, state=state)
    assert found.status == status
    assert text in found.text


def test_a_kernel_that_says_nothing_of_its_clock_is_a_warning(monkeypatch):
    def refuse():
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(host_checks, "kernel_clock", refuse)
    assert host_checks.check_clock(2e9, newest=1.9e9).status == "warn"


@pytest.mark.parametrize(
    ("files", "status"),
    [(65536, "ok"), (resource.RLIM_INFINITY, "ok"), (1024, "warn"), (256, "fail")],
)
def test_few_open_files_are_said(files, status):
    found = host_checks.check_limits(files)
    assert found.status == status
    assert found.remedy.startswith("ulimit -n 65536") == (status != "ok")


def test_a_finding_has_a_remedy_where_it_is_not_ok_and_only_there():
    with pytest.raises(ValueError, match="remedy"):
        Finding(name="x", status="warn", text="y")
    with pytest.raises(ValueError, match="remedy"):
        Finding(name="x", status="ok", text="y", remedy="z")


def test_checks_run_together_in_order_and_one_that_raises_is_a_finding():
    def breaks():
        raise OSError("no\nsuch thing")

    fine = Finding(name="a", status="ok", text="fine")
    checks = [
        Check(name="a", look=lambda: fine, remedy="none"),
        Check(name="b", look=breaks, remedy="mend it"),
    ]
    found = list(run_checks(checks))
    assert found[0] is fine
    assert str(found[1]) == "fail b           OSError: no such thing -> mend it"
    assert as_json(found) == {
        "is_ok": False,
        "failed": ["b"],
        "warned": [],
        "findings": [
            {"name": "a", "status": "ok", "text": "fine", "remedy": ""},
            {
                "name": "b",
                "status": "fail",
                "text": "OSError: no such thing",
                "remedy": "mend it",
            },
        ],
    }
    assert as_json(found[:1])["is_ok"]
