"""jax that hangs, that does not start, that sees another device or that computes wrong is told apart."""

import json
import sys

import pytest

from jaxtool.cluster.device_checks import check_devices, expected_platform

FOUND = {"platform": "cpu", "kind": "cpu", "count": 1, "memory": None, "sum": 2097152.0}


def command(code):
    return [sys.executable, "-c", code]


def says(**changed):
    return command(f"print('noise'); print('FOUND', {json.dumps(json.dumps(FOUND | changed))})")


@pytest.mark.parametrize(
    ("files", "environment", "platform"),
    [
        (["nvidia0", "nvidiactl"], {}, "gpu"),
        (["accel0"], {}, "tpu"),
        (["vfio/0", "vfio/vfio"], {}, "tpu"),
        (["vfio/vfio", "nvidiactl", "null"], {}, "cpu"),
        (["nvidia0"], {"JAX_PLATFORMS": "cpu"}, "cpu"),
    ],
    ids=["gpu", "tpu v4", "tpu v6e", "none", "unwanted"],
)
def test_device_files_say_what_jax_should_see(tmp_path, files, environment, platform):
    (tmp_path / "vfio").mkdir()
    for name in files:
        (tmp_path / name).touch()
    assert expected_platform(tmp_path, environment) == platform


def test_this_machine_has_a_cpu_that_multiplies(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found = check_devices("cpu", timeout_s=60)
    assert found.status == "ok"
    assert " x cpu" in found.text


@pytest.mark.parametrize(
    ("expected", "ask", "text", "remedy"),
    [
        ("tpu", says(), "/dev has a tpu, and jax sees 1 x cpu", "pip install -e '.[tpu]'"),
        ("gpu", says(), "/dev has a gpu, and jax sees 1 x cpu", "pip install -e '.[cuda]'"),
        ("cpu", says(sum=2097153.5), "sums to 2097153.5, not 2097152.0", "restart the host"),
        (
            "cpu",
            command("raise SystemExit('No module named jax')"),
            "jax does not start: No module named jax",
            "pip install -e '.[cpu]'",
        ),
        ("cpu", command("pass"), "jax does not start: exit status 0", "pip install"),
    ],
    ids=["no tpu", "no gpu", "wrong sum", "no jax", "says nothing"],
)
def test_each_failure_is_named_with_its_remedy(expected, ask, text, remedy):
    found = check_devices(expected, command=ask, timeout_s=60)
    assert found.status == "fail"
    assert text in found.text
    assert found.remedy.startswith(remedy)


def test_memory_of_a_device_is_said():
    ask = says(platform="tpu", kind="TPU v6 lite", count=4, memory=2**35)
    assert check_devices("tpu", command=ask, timeout_s=60).text == "4 x TPU v6 lite of 32.0 GiB"
    cuda = says(platform="cuda", kind="H100", memory=None)
    assert check_devices("gpu", command=cuda, timeout_s=60).status == "ok"


def test_jax_that_hangs_is_ended():
    found = check_devices("tpu", command=command("import time; time.sleep(600)"), timeout_s=0.5)
    assert (found.status, found.text) == ("fail", "jax did not start in 0.5 s")
    assert "on all hosts at once" in found.remedy
