"""JSON for pages: no nan, nothing that ends a script element or starts a comment."""

import json
import math
from typing import Any


def json_for_html(value: Any) -> str:
    """JSON that ends no script element and starts no comment, whatever its strings hold."""
    text = json.dumps(without_nan(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def without_nan(value: Any) -> Any:
    """The same with None for each number that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value
