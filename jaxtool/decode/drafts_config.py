"""Settings of exact drafts: guesses at a row's next tokens, run in one pass of the model and kept if right.

A token is a function of its row's key, its position and the scores. So a guess is right iff it is the token
that the row draws itself. No draw is rejected and none is made twice: the tokens are those of ordinary windows.
"""

import dataclasses
from typing import Literal, get_args

from jaxtool.core.ranges import check_range

Rounding = Literal["exact", "same_program", "any"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DraftsConfig:
    """Where guesses come from, how many are run in a pass, and what a wider pass may round."""

    # C, tokens of a row in one pass: the pending one and up to C - 1 guesses. Each is a program of its own.
    columns: tuple[int, ...] = (2, 4)
    # A pass over C columns has wider matrix products, which may round otherwise than one over a single column.
    #   exact         a width serves only where it was checked to compute the ordinary window's bits, see
    #                 `draft_check`; elsewhere the ordinary window runs
    #   same_program  every window has the widest pass, guesses or not: the same program makes all tokens
    #   any           every width serves; a token on the edge between two may come out as the other one
    rounding: Rounding = "exact"
    least_match: int = 2  # tokens that must have come before in the same order for a guess
    most_match: int = 8  # of two places the one with the longer match serves, up to so many tokens
    source_tokens: int = (
        2048  # E, of each row: what its siblings and earlier answers to its problem said
    )
    answers_kept: int = 16  # earlier answers of a problem
    problems_kept: int = 4096  # whose answers are kept, the last ones
    retry_windows: int = 32  # ordinary windows until drafts are tried again where they did not pay
    least_accepted: float = 0.1  # of its guesses; a row below drafts nothing until the next try

    def __post_init__(self) -> None:
        if self.rounding not in get_args(Rounding):
            raise ValueError(
                f"DraftsConfig.rounding={self.rounding!r} must be one of {', '.join(get_args(Rounding))}"
            )
        if not self.columns or sorted(set(self.columns)) != list(self.columns):
            raise ValueError(f"DraftsConfig.columns={self.columns} must rise, and not be empty")
        check_range(self, "columns", least=2)
        check_range(self, "least_match", "retry_windows", "problems_kept", least=1)
        check_range(self, "most_match", most=32)
        check_range(self, "source_tokens", least=64)
        check_range(self, "answers_kept", least=0)
        check_range(self, "least_accepted", least=0, most=1)
        if self.most_match < self.least_match:
            raise ValueError(
                f"DraftsConfig.most_match={self.most_match} must be at least "
                f"least_match={self.least_match}"
            )

    @property
    def widest(self) -> int:
        return self.columns[-1]
