"""Two commits' figures side by side: medians, and what counts as worse."""

import json
import sys

import pytest

from benchmarks import sandbox_pairs


def _run(commit: str, per_second: float, cpu_ms: float, p99_ms: float = 9.0) -> dict:
    ours = {"way": "ours, landlock", "program": "print", "clients": 8}
    figures = {"per_second": per_second, "p50_ms": 5.0, "p99_ms": p99_ms, "cpu_ms": cpu_ms}
    return {
        "commit": commit,
        "machine": "x86_64, 2 cores",
        "python": "3.11.7",
        "rows": [ours | figures, {"way": "subprocess"}],
        "cpu_ratios": {"sympy: subprocess / ours, landlock": 25.0},
        "extras": {"landlock": {"private_mib": {"idle_session": 2.0}}},
    }


def test_a_figure_is_the_median_of_its_files():
    old = [_run("a", rate, 4.0) for rate in (100.0, 90.0, 400.0)]
    new = [_run("b", rate, 4.4) for rate in (80.0, 5.0, 90.0)]
    rate, _, _, cpu, *_ = sandbox_pairs.compare(old, new)
    assert (rate.name, rate.unit, rate.old, rate.new) == (
        "ours, landlock, print, 8 clients", "calls/s", 100.0, 80.0,
    )  # fmt: skip
    assert rate.worse == pytest.approx(0.25)  # 10 ms a call became 12.5 ms
    assert cpu.worse == pytest.approx(0.10)


@pytest.mark.parametrize(
    ("cpu_ms", "p99_ms", "code"), [(4.3, 9.0, 0), (4.5, 9.0, 1), (4.0, 99.0, 0)]
)
def test_ten_percent_worse_is_an_exit_code(tmp_path, monkeypatch, cpu_ms, p99_ms, code):
    for name, run in (("old", _run("a", 100.0, 4.0)), ("new", _run("b", 100.0, cpu_ms, p99_ms))):
        (tmp_path / name).write_text(json.dumps(run))
    paths = [str(tmp_path / name) for name in ("old", "new", "out")]
    monkeypatch.setattr(
        sys, "argv", ["x", "--old", paths[0], "--new", paths[1], "--json", paths[2]]
    )
    assert sandbox_pairs.main() == code
    found = json.loads((tmp_path / "out").read_text())
    assert found["old"] == {"commits": ["a"], "files": 1}
    assert found["worst"] == pytest.approx(max(0.0, cpu_ms / 4 - 1))
