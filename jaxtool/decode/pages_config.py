"""Settings of a paged cache: `EngineConfig.pages = @PagesConfig()`; None keeps one allocation per row."""

import dataclasses

from jaxtool.core.ranges import check_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class PagesConfig:
    """Rows take pages as they grow, and move to the memory of the host where the pool is dry."""

    # Positions of a page. The TPU kernel reads a page in one grid step: with pages of 512 the steps cost
    # more than the bytes. A row wastes half a page on average.
    page_tokens: int = 2048
    pool_tokens: int = 0  # of all pages of a host; 0: what its memory leaves
    # Free positions that admission keeps for each row in flight. Fewer: more rows, moved more often.
    headroom_tokens: int = 1024
    # On their way to the host at once, and as many on their way back: each has a copy on the device.
    pages_in_flight: int = 4

    def __post_init__(self) -> None:
        check_range(self, "page_tokens", "pages_in_flight", least=1)
        check_range(self, "pool_tokens", "headroom_tokens", least=0)
        rest = self.pool_tokens % self.page_tokens
        if rest:
            below = self.pool_tokens - rest
            either = f"{below} or " if below else ""
            raise ValueError(
                f"PagesConfig.pool_tokens={self.pool_tokens} must be a multiple of "
                f"page_tokens={self.page_tokens}: set {either}{below + self.page_tokens}"
            )

    @property
    def num_pages(self) -> int:
        """Of the pool; 0: not known yet."""
        return self.pool_tokens // self.page_tokens

    def pages_of(self, tokens: int) -> int:
        """That hold so many tokens of a row."""
        return -(-tokens // self.page_tokens)

    def check_rows(self, max_tokens: int, decode_rows: int) -> None:
        """Raises ValueError if rows of `max_tokens` do not divide into pages, or the pool holds not even one."""
        page = self.page_tokens
        if max_tokens % page:
            above = self.pages_of(max_tokens) * page
            raise ValueError(
                f"EngineConfig.max_tokens={max_tokens} must be a multiple of PagesConfig.page_tokens="
                f"{page}: set max_tokens={above}, or smaller pages"
            )
        if 0 < self.pool_tokens < max_tokens:
            raise ValueError(
                f"PagesConfig.pool_tokens={self.pool_tokens} holds not one row of "
                f"EngineConfig.max_tokens={max_tokens}: raise pool_tokens to {max_tokens} or more, or "
                "lower max_tokens"
            )
        if not decode_rows:
            raise ValueError(
                "EngineConfig.decode_rows=0 (as many as fit) says nothing with EngineConfig.pages, whose "
                "rows share a pool: set the rows that a window decodes at most, such as 128"
            )
