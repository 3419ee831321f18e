"""Where a string of a Python text ends, by Python's lexical rules, for text that may still grow.

Covered: single and triple quotes, escapes, prefixes, f-strings with nested fields and format specs as
Python 3.12 reads them. Not covered: whether the text around the string is Python. Nothing is parsed or
run, so that a hostile text costs no more than its length.
"""

import re

OPEN = -1  # the text ends inside the string
NEVER = -2  # the line ends inside it: the quote opened no string

PLAIN = 12  # strings in fields of strings that are read as such; Python 3.12 allows 150
_BODIES = {
    "'": re.compile(r"(?:[^\\\n']++|\\(?:\r\n|.))*+", re.DOTALL),
    '"': re.compile(r'(?:[^\\\n"]++|\\(?:\r\n|.))*+', re.DOTALL),
    "'''": re.compile(r"(?:[^\\']++|\\.|'(?!''))*+", re.DOTALL),
    '"""': re.compile(r'(?:[^\\"]++|\\.|"(?!""))*+', re.DOTALL),
}
_PREFIX = re.compile(r"(?<!\w)(?:[fFtT][rR]?|[rR][fFtT])\Z")
_IN_FORMAT = re.compile(r"[\\{}\n'\"]")
_IN_FIELD = re.compile(r"['\"#()\[\]{}:\n`]|</")
_IN_SPEC = re.compile(r"[{}\n]")


def quote_at(text: str, at: int) -> str:
    """The opening quote at `at`: one character or three."""
    return text[at] * 3 if text.startswith(text[at] * 3, at) else text[at]


def end_of_string(text: str, at: int, depth: int = 0) -> int:
    """Index just past the string whose opening quote stands at `at`, or OPEN, or NEVER.

    Args:
      depth: of fields around it; from PLAIN on, f-strings are read as other strings are.
    """
    quote = quote_at(text, at)
    if len(text) == at + 2 and text.endswith(
        quote[0] * 2
    ):  # an empty string, or the first two of three quotes
        return OPEN
    if depth < PLAIN and _PREFIX.search(text, max(0, at - 3), at):
        return _end_of_format(text, at + len(quote), quote, depth)
    body = _BODIES[quote].match(text, at + len(quote))
    assert body is not None
    stop = body.end()
    if text.startswith(quote, stop):
        return stop + len(quote)
    return NEVER if text.startswith("\n", stop) else OPEN


def _end_of_format(text: str, at: int, quote: str, depth: int) -> int:
    while found := _IN_FORMAT.search(text, at):
        at, mark = found.start(), found.group()
        if mark == "\\":
            after = text[at + 1 : at + 3]
            at += 1 if after[:1] in ("{", "}") else 3 if after == "\r\n" else 2
        elif text.startswith(quote, at):
            return at + len(quote)
        elif mark == "\n" and len(quote) == 1:
            return NEVER
        elif mark == "{" and not text.startswith("{{", at):
            at = _end_of_field(text, at + 1, quote, depth + 1)
            if at < 0:
                return at
        else:
            at += 2 if mark == "{" else 1
    return OPEN


def _end_of_field(text: str, at: int, quote: str, depth: int) -> int:
    """Index just past the } of a field; code in it is read as outside of strings."""
    brackets = 0
    while found := _IN_FIELD.search(text, at):
        at, mark = found.start(), found.group()
        if mark in ("'", '"'):
            at = end_of_string(text, at, depth)
            if at < 0:
                return at
        elif mark in ("`", "</"):  # no Python outside of strings: there was no field
            return NEVER
        elif mark == "#":
            at = text.find("\n", at)
            if at < 0:
                return OPEN
        elif mark == "}" and not brackets:
            return at + 1
        elif mark == ":" and not brackets:
            return _end_of_spec(text, at + 1, quote, depth)
        else:
            brackets += (mark in "([{") - (mark in ")]}" and brackets > 0)
            at += 1
    return OPEN


def _end_of_spec(text: str, at: int, quote: str, depth: int) -> int:
    while found := _IN_SPEC.search(text, at):
        at = found.start() + 1
        if found.group() == "}":
            return at
        if found.group() == "\n" and len(quote) == 1:
            return NEVER
        if found.group() == "{":
            if depth >= PLAIN:
                return NEVER
            at = _end_of_field(text, at, quote, depth + 1)
            if at < 0:
                return at
    return OPEN
