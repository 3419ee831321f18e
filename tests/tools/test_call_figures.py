"""Figures of calls, over hosts and by tool."""

from jaxtool.tools.call_figures import CallFigures, call_metrics


def test_figures_of_two_hosts_are_those_of_all_calls():
    one = {
        "python": CallFigures(latencies_s=[0.3, 0.1], errors=1, deadlines=1),
        "search": CallFigures(invalid=2),
    }
    other = {
        "python": CallFigures(latencies_s=[0.2, 0.9], unavailable=1),
        "search": CallFigures(invalid=1),
    }
    assert call_metrics([one, other]) == {
        "tools/calls_count/python": 4.0,
        "tools/errors_count/python": 1.0,
        "tools/deadlines_count/python": 1.0,
        "tools/unavailable_count/python": 1.0,
        "tools/invalid_count/python": 0.0,
        "timing/call_p50_s/python": 0.2,
        "timing/call_p95_s/python": 0.9,
        "tools/calls_count/search": 0.0,
        "tools/errors_count/search": 0.0,
        "tools/deadlines_count/search": 0.0,
        "tools/unavailable_count/search": 0.0,
        "tools/invalid_count/search": 3.0,
    }


def test_of_twenty_calls_the_nineteenth_is_the_95th_percentile():
    figures = {"python": CallFigures(latencies_s=[float(i) for i in range(1, 21)])}
    found = call_metrics([figures])
    assert (found["timing/call_p50_s/python"], found["timing/call_p95_s/python"]) == (10.0, 19.0)


def test_retries_are_counted_for_tools_that_say_them():
    one = {"add": CallFigures(retries=2), "python": CallFigures()}
    other = {"add": CallFigures(retries=1), "python": CallFigures()}
    found = call_metrics([one, other])
    assert found["tools/retried_count/add"] == 3.0
    assert "tools/retried_count/python" not in found
