"""Arguments against a tool's JSON schema."""

import pytest

from jaxtool.tools.schema import mismatch

SCHEMA = {
    "type": "object",
    "properties": {
        "query": {"type": "string"},
        "count": {"type": "integer", "default": 3},
        "unit": {"enum": ["km", 1]},
        "rate": {"type": "number"},
        "is_exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "where": {"anyOf": [{"type": "null"}, {"type": "object", "additionalProperties": {"type": "integer"}}]},
        "either": {"type": ["string", "null"]},
    },
    "required": ["query"],
    "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"count": 7, "unit": "km", "rate": 1, "is_exact": True, "tags": [], "where": None},
        {"unit": 1, "rate": 0.5, "tags": ["a"], "where": {"a": 1}, "either": None},
    ],
)
def test_what_fits(others):
    assert mismatch({"query": "Emma", **others}, SCHEMA) == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the argument query is missing"),
        ({"query": 7}, "query must be a string, got 7"),
        ({"query": "", "count": "7"}, "count must be an integer, got '7'"),
        ({"query": "", "count": True}, "count must be an integer, got True"),
        ({"query": "", "count": 7.0}, "count must be an integer, got 7.0"),
        ({"query": "", "rate": False}, "rate must be a number, got False"),
        ({"query": "", "unit": True}, "unit must be one of 'km', 1, got True"),
        ({"query": "", "tags": ["a", 1]}, "tags[1] must be a string, got 1"),
        ({"query": "", "tags": "a"}, "tags must be an array, got 'a'"),
        ({"query": "", "where": 1}, "where must be a null, got 1"),
        ({"query": "", "either": 1}, "either must be a string or a null, got 1"),
        ({"query": "", "top": 1}, "there is no argument 'top'; the arguments are query, count, unit, rate, is_exact, tags, where, either"),
        ({"query": ["x" * 100]}, f"query must be a string, got ['{'x' * 58}..."),
        ([], "it must be an object, got []"),
    ],
)  # fmt: skip
def test_what_does_not(arguments, message):
    assert mismatch(arguments, SCHEMA) == message
