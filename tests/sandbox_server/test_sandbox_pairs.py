"""Two checkouts' servers in turns: medians over rounds, and what counts as worse."""

import json
import sys

import pytest

from benchmarks import sandbox_pairs
from benchmarks.sandbox_pairs import Figure, Turn


def _turns(*cpu_ms: float, per_second: float = 100.0) -> list[Turn]:
    return [Turn(seconds=1 / per_second, cpu_s=ms / 1000) for ms in cpu_ms]


def test_a_round_that_was_disturbed_for_both_says_nothing_of_either():
    old, new = _turns(4.0, 40.0, 5.0), _turns(4.4, 44.0, 5.5)
    rate, cpu = sandbox_pairs.figures("print", old, new)
    assert (cpu.unit, cpu.old, cpu.new) == ("CPU ms", 5.0, 5.5)
    assert (cpu.worse, cpu.low, cpu.high) == pytest.approx((0.1, 0.1, 0.1))
    assert (rate.unit, rate.old, rate.new, rate.worse) == ("calls/s", 100.0, 100.0, 0.0)


def test_fewer_calls_a_second_are_worse_by_what_a_call_costs():
    old, new = _turns(4.0, 4.0), _turns(4.0, 4.0, per_second=80.0)
    rate, _ = sandbox_pairs.figures("print", old, new)
    assert rate.worse == pytest.approx(0.25)  # 10 ms a call became 12.5 ms


def test_the_interval_holds_what_single_rounds_vary_by():
    worse, low, high = sandbox_pairs.dearer([1.0] * 5, [0.9, 1.0, 1.1, 1.2, 1.3])
    assert worse == pytest.approx(0.1)
    assert -0.1 <= low < worse < high < 0.31


@pytest.mark.parametrize(("low", "code"), [(0.09, 0), (0.11, 1)])
def test_the_exit_code_is_one_where_the_whole_interval_is_above_ten_percent(
    tmp_path, monkeypatch, low, code
):
    figure = Figure(name="print", unit="CPU ms", old=4.0, new=4.5, worse=0.125, low=low, high=0.2)
    monkeypatch.setattr(sandbox_pairs, "measure", lambda *_: [figure])
    out = tmp_path / "out.json"
    old = str(sandbox_pairs.ROOT)
    monkeypatch.setattr(sys, "argv", ["x", "--old", old, "--tier", "landlock", "--json", str(out)])
    assert sandbox_pairs.main() == code
    [found] = json.loads(out.read_text())["figures"]
    assert found["low"] == low


def test_a_directory_without_a_server_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--old", str(tmp_path)])
    with pytest.raises(SystemExit):
        sandbox_pairs.main()
    assert "is no checkout: it has no sandbox_server" in capsys.readouterr().err
