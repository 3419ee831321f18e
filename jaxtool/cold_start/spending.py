"""What an endpoint's answers cost, and whether another request fits into the budget. Pure, but for `Account`.

A request is asked only if it fits at its worst: as many prompt tokens as its text has bytes, and as many
written tokens as it may have. No tokenizer makes more tokens than bytes. What a reply then reports takes
the place of the worst case. A request of which no reply came counts at its worst: it may have been billed.
"""

import asyncio
import dataclasses

from jaxtool.core.ranges import check_range

TEMPLATE_TOKENS = 64  # that a chat template may put around a prompt
_BYTES_PER_TOKEN = 3  # of English and mathematics, rounded towards more tokens
_MILLION = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens read and written."""

    prompt: int = 0
    written: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(prompt=self.prompt + other.prompt, written=self.written + other.written)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(prompt=self.prompt - other.prompt, written=self.written - other.written)

    @property
    def total(self) -> int:
        return self.prompt + self.written


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prices:
    """Money for a million tokens, in any currency."""

    prompt: float = 0.0
    written: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "prompt", "written", least=0)

    def of(self, tokens: Tokens) -> float:
        return (tokens.prompt * self.prompt + tokens.written * self.written) / _MILLION


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What may be spent in all, earlier starts of the same command included."""

    tokens: int | None = None
    money: float | None = None

    def __post_init__(self) -> None:
        check_range(self, "tokens", least=1)
        check_range(self, "money", above=0)
        if self.tokens is None and self.money is None:
            raise ValueError(
                "no budget: give --budget_tokens, or --budget_money with --prices; a rewriter is paid "
                "by the token"
            )

    def check_prices(self, prices: Prices) -> None:
        """Raises ValueError where the budget of money could not act."""
        if self.money is not None and not (prices.prompt and prices.written):
            raise ValueError(
                f"--budget_money {self.money:g} needs --prices PROMPT WRITTEN, the money for a million "
                "tokens read and written, both above 0"
            )

    def holds(self, tokens: Tokens, prices: Prices) -> bool:
        is_few = self.tokens is None or tokens.total <= self.tokens
        return is_few and (self.money is None or prices.of(tokens) <= self.money)


# Of a rewriter that nobody bills.
UNLIMITED = Budget(tokens=1 << 62)


def expected_prompt_tokens(text: str) -> int:
    """One token for three bytes of UTF-8, and what a chat template adds."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN) + TEMPLATE_TOKENS


def worst(text: str, max_tokens: int) -> Tokens:
    """The most that one request can cost."""
    size = len(text.encode("utf-8", "replace"))
    return Tokens(prompt=size + TEMPLATE_TOKENS, written=max_tokens)


class BudgetReached(Exception):
    """The next request does not fit."""


class Account:
    """Tokens spent, and those held back for requests on their way. Used from one asyncio loop."""

    def __init__(self, budget: Budget, prices: Prices, spent: Tokens, uncertain: Tokens):
        """Args:
        spent: by earlier starts, as replies reported.
        uncertain: by earlier starts, of requests without a reply, at their worst.
        """
        self._budget, self._prices = budget, prices
        self.spent, self.uncertain = spent, uncertain
        self._held = Tokens()
        self._on_their_way = 0
        self._changed = asyncio.Event()

    @property
    def total(self) -> Tokens:
        return self.spent + self.uncertain

    @property
    def money(self) -> float:
        return self._prices.of(self.total)

    async def admit(self, most: Tokens) -> None:
        """Holds `most` back; waits while requests on their way may still turn out cheaper.

        Raises:
          BudgetReached: it does not fit, and nothing is on its way.
        """
        while not self._budget.holds(self.total + self._held + most, self._prices):
            if not self._on_their_way:
                raise BudgetReached
            self._changed.clear()
            await self._changed.wait()
        self._held += most
        self._on_their_way += 1

    def settle(self, most: Tokens, *, spent: Tokens | None, is_billed: bool) -> None:
        """Ends what `admit` began. Never waits: a reply that was paid for must not be lost here.

        Args:
          spent: as the reply reports it; None: there was no reply, or it reports nothing.
          is_billed: whether it may have been billed.
        """
        self._held -= most
        self._on_their_way -= 1
        if spent is not None:
            self.spent += spent
        elif is_billed:
            self.uncertain += most
        self._changed.set()
