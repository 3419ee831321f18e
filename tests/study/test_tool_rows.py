"""Calls by tool in the tables of an evaluation."""

from types import SimpleNamespace

from jaxtool.study.compare import Comparison, tool_rows


def comparison(**variants):
    """Args: variants: calls by tool of each, greedy and sampled; None where too many answers were lost."""
    parts = {
        name: {
            way: SimpleNamespace(overall={} if calls is None else {"tool_calls_by_tool": calls})
            for way, calls in zip(("greedy", "sampled"), both, strict=True)
        }
        for name, both in variants.items()
    }
    return Comparison(variants=parts, views=(), max_lost_fraction=0.01)


def test_each_tool_has_its_own_line():
    made = comparison(
        grpo=({"python": 1.5, "search": 0.25}, None), otc=({"python": 0.5}, {"search": 1.0})
    )
    columns, rows = tool_rows(made)
    assert columns == ("tool", "sampling", "grpo", "otc")
    assert rows == [
        ("python", "greedy", "1.50", "0.50"),
        ("python", "sampled", "–", "0.00"),
        ("search", "greedy", "0.25", "0.00"),
        ("search", "sampled", "–", "1.00"),
    ]


def test_one_tool_has_no_table_of_its_own():
    assert tool_rows(comparison(grpo=({"python": 1.5}, {"python": 1.0})))[1] == []
