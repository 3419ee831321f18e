"""ReTool's lenient rule, reported beside the strict verdict: the last integer of the last line.

ReTool (2504.11536) counts a response as right if its checker accepts the last box, or if the last integer
of the last line is the answer. It accepts `not 5` for 5, so nothing is trained on it.
"""

import re

from jaxtool.judges import exact
from jaxtool.judges.expressions import read
from jaxtool.judges.latex_clean import clean
from jaxtool.judges.lexer import Unreadable

_MAX_DIGITS = 1000
_INTEGER = re.compile(r"-?\d+(?:,\d{3})*")


def last_integer_is(response: str, reference: str) -> bool:
    """Whether the last integer of the response's last line that is not empty is the reference."""
    lines = response.strip().splitlines()
    integers = _INTEGER.findall(lines[-1]) if lines else []
    if not integers:
        return False
    try:
        wanted = exact.exact_value(read(clean(reference)))
    except Unreadable:
        return False
    return wanted == int(integers[-1].replace(",", "")[:_MAX_DIGITS])
