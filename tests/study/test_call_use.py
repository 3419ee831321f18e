"""Over-use and under-use by level, by hand."""

from types import SimpleNamespace

import pytest

from jaxtool.study.call_use import call_use, use_of, use_rows
from jaxtool.study.comparison_tables import Comparison


def group(level, *calls):
    """Samples with so many calls; None: lost."""
    samples = tuple(
        SimpleNamespace(
            is_masked=made is None,
            trajectory=SimpleNamespace(problem=SimpleNamespace(level=level), num_tool_calls=made),
        )
        for made in calls
    )
    return SimpleNamespace(samples=samples)


GROUPS = [group("known", 0), group("known", 2), group("two_hop", 1, 2, None), group("one_hop", 3)]


def test_over_use_does_not_hide_under_use():
    """5 answers: 2 and 2 calls too many, 1 too few; the mean of calls, 8/5, is one call over the 5/5 needed."""
    use = call_use(GROUPS)
    assert use["all"] == {"answers": 5, "needed": 1.0, "over_use": 4 / 5, "under_use": 1 / 5}
    assert use["known"] == {"answers": 2, "needed": 0.0, "over_use": 1.0, "under_use": 0.0}
    assert use["two_hop"] == {"answers": 2, "needed": 2.0, "over_use": 0.0, "under_use": 0.5}
    assert use["one_hop"]["over_use"] == pytest.approx(2.0)


def test_rows_show_both_and_what_is_refused():
    whole = SimpleNamespace(is_refused=False, groups=GROUPS)
    refused = SimpleNamespace(is_refused=True, groups=())
    made = Comparison(
        variants={
            "a": {"greedy": whole, "sampled": whole},
            "b": {"greedy": refused, "sampled": whole},
        },
        views=(),
        max_lost_fraction=0.01,
    )
    assert use_of(made)["b"]["greedy"] == {}
    columns, rows = use_rows(made, "greedy")
    assert columns == ("level", "needed", "a", "b")
    assert rows[0] == ("all", "1.00", "+0.80 / -0.20", "refused")
    assert rows[1] == ("known", "0.00", "+1.00 / -0.00", "refused")
