"""Text from outside as token ids: questions and what tools print bring no control token into a context.

`encode_between` puts such a text between parts of a template. Where the text holds nothing that the
tokenizer would take for one of its control tokens, the ids are those of the whole text, merges over the
borders included. Otherwise the parts are encoded one by one, the text as ordinary characters.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence

from jaxtool.data.tokenizer import Tokenizer

_MARKER = re.compile(r"<\S+>|\[\S+\]")


def is_marker(token: str) -> bool:
    """True for an added token that reads as markup (<|im_end|>, <think>, [INST]), not as text.

    Tokenizers also add plain text, such as runs of blanks; that stays what it is.
    """
    return _MARKER.fullmatch(token) is not None


def encode_between(
    tokenizer: Tokenizer, parts: Sequence[str], text: str, *, whole: str | None = None
) -> list[int]:
    """Ids of `parts` with `text` between them; control tokens come from the parts alone.

    Args:
      whole: what is encoded where `text` is ordinary; None: the parts joined by the text.
    """
    control = tokenizer.control_tokens
    ids = tokenizer.encode(text.join(parts) if whole is None else whole)
    pieces = [tokenizer.encode(part) for part in parts]
    allowed = [i for piece in pieces for i in piece if i in control]
    if [i for i in ids if i in control] == allowed:
        return ids
    plain = tokenizer.encode_plain(text)
    out = list(pieces[0])
    for piece in pieces[1:]:
        out += [*plain, *piece]
    return out


def encode_as_text(
    text: str, control: Mapping[int, str], encode: Callable[[str], list[int]]
) -> list[int]:
    """`encode(text)` without any of the ids of `control`.

    Where `encode` makes one all the same (a piece that its model finds in a text), each spelling of a
    control token is cut after its first character: then no piece holds one whole.
    """
    ids = encode(text)
    if control.keys().isdisjoint(ids):
        return ids
    spellings = "|".join(re.escape(token) for token in control.values() if len(token) > 1)
    cuts = [
        0,
        *(match.start() + 1 for match in re.finditer(f"(?=(?:{spellings}))", text)),
        len(text),
    ]
    pieces = [encode(text[start:stop]) for start, stop in itertools.pairwise(cuts)]
    return [i for piece in pieces for i in piece if i not in control]
