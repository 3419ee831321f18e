"""A place in a list of tokens, for a parser.

Not covered: the grammar (`expressions`).
"""

from jaxtool.judges.lexer import Token, Unreadable


class Cursor:
    """The tokens and where the reading stands."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0  # of brackets and groups

    def _peek(self, ahead: int = 0) -> Token:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else Token("end", "", True)

    def _next(self) -> Token:
        token = self._peek()
        self._at = min(self._at + 1, len(self._tokens))
        return token

    def _take(self, *values: str) -> bool:
        token = self._peek()
        if token.kind in ("sign", "command") and token.value in values:
            self._at += 1
            return True
        return False

    def _expect(self, value: str) -> None:
        if not self._take(value):
            raise Unreadable(f"{value!r} is missing")

    def _subscript(self) -> str:
        """What stands below, as text: 10 of a_{10}."""
        if not self._take("{"):
            token = self._next()
            if token.kind in ("end", "sign"):
                raise Unreadable("an index is missing")
            return token.value.lstrip("\\")
        parts, depth = [], 1
        while depth:
            token = self._next()
            if token.kind == "end":
                raise Unreadable("it breaks off")
            depth += (token.value == "{") - (token.value == "}")
            parts.append(token.value if depth else "")
        return "".join(parts)
