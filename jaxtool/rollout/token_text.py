"""Tokens as coloured text while they come: who wrote what, control tokens framed. A character waits for its last byte."""

import codecs
from collections.abc import Sequence

from rich.text import Text

from jaxtool.core.types import Origin
from jaxtool.data.tokenizer import Tokenizer, written_bytes

STYLES = {Origin.PROMPT: "dim", Origin.POLICY: "green", Origin.TOOL: "cyan"}
CONTROL_STYLE = "bold reverse"


class TokenText:
    """Takes tokens, a few at a time, and gives their text.

    An example: "é" is two bytes, and two tokens have one each. The first `take` gives nothing, the second "é".
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._origin = Origin.PROMPT

    def take(self, ids: Sequence[int], origin: Origin) -> Text:
        """The text of these tokens in their writer's colour; a control token as ⟨|im_end|⟩."""
        text = Text() if origin is self._origin else self.end()
        self._origin = origin
        for token_id in ids:
            control = self._tokenizer.control_tokens.get(int(token_id))
            if token_id >= self._tokenizer.vocab_size:  # padding of the policy's vocabulary
                control = f"no token {token_id}"
            if control is None:
                raw = written_bytes(self._tokenizer, int(token_id))
                text.append(self._decoder.decode(raw), STYLES[origin])
            else:
                text += self.end()
                text.append(framed(control), CONTROL_STYLE)
        return text

    def end(self) -> Text:
        """What is left of a character that never became whole."""
        return Text().append(self._decoder.decode(b"", final=True), STYLES[self._origin])


def framed(token: str) -> str:
    """⟨|im_end|⟩ of <|im_end|>."""
    return "⟨" + token.removeprefix("<").removesuffix(">") + "⟩"
