"""Shapes and counters of the decoder."""

import dataclasses

from jaxtool.core.ranges import check_range
from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.decode.publish import DecoderNumerics


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Shapes of the decoder. Every program is compiled for these and no others."""

    # W, rows decoded at once; at least 4, small products are slow in bfloat16. 0: as many as fit
    decode_rows: int = 64
    cache_rows: int = 0  # B, rows of the cache; 0: decode_rows. With more, rows that wait for tools are not decoded
    min_decode_rows: int = 0  # windows narrow by halves to this when few rows run; 0: never
    max_tokens: int = 512  # S, longest trajectory, prompt included
    window_steps: int = 32  # K; peers saw 25 % lost by returning on every end of a row
    refill_below: float = 0.0  # share of a window's rows; when fewer run and others wait, it ends
    min_view: int = 128  # attention reads this many positions, doubled up to max_tokens
    prefill_rows: int = 8  # R, prompts per prefill call and rows per copy into the cache
    prefill_chunk: int = 0  # longer prompts are prefilled so many tokens a window; 0: at once
    min_prompt_bucket: int = 16  # shortest padded prompt, doubled up to max_tokens
    forced_tokens: int = 32  # F; longer tool outputs go by chunks of this many tokens
    append_rows: int = 4  # tool outputs per chunked append
    memory_gib: float = 0.0  # the decoder may take, all devices together; 0: ask device or host
    memory_share: float = 0.5  # of what is free there; the optimizer and activations come later
    planned_share: float = 0.9  # of that may be planned; the rest is for XLA's own buffers
    most_decode_rows: int = 256  # that `decode_rows = 0` takes
    numerics: DecoderNumerics = dataclasses.field(
        default_factory=DecoderNumerics
    )  # dtype, int8 and attention of the decoder
    pages: PagesConfig | None = None  # rows take pages as they grow; None: max_tokens for each
    drafts: DraftsConfig | None = None  # guesses that are kept where a row draws them; None: off

    def __post_init__(self) -> None:
        check_range(self, "refill_below", "memory_share", "planned_share", least=0, most=1)
        check_range(self, "memory_gib", least=0)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("numerics", "pages", "drafts"):
                continue
            least = 0 if field.name == "decode_rows" or field.default == 0 else 1e-9
            if value < least:
                bound = ">= 0" if least == 0 else "> 0"
                raise ValueError(f"EngineConfig.{field.name} must be {bound}, got {value}")
        if self.refill_below > 1:
            raise ValueError(f"EngineConfig.{self.refill_below=} must be in [0, 1]")
        if self.cache_rows and self.cache_rows < self.decode_rows:
            raise ValueError(
                f"EngineConfig.cache_rows={self.cache_rows} must be 0 or >= decode_rows={self.decode_rows}"
            )
        if self.memory_share > 1:
            raise ValueError(f"EngineConfig.{self.memory_share=} must be in (0, 1]")
        if self.drafts is not None and self.drafts.widest > self.window_steps:
            raise ValueError(
                f"DraftsConfig.columns={self.drafts.columns} must not exceed "
                f"EngineConfig.window_steps={self.window_steps}"
            )
        if self.min_decode_rows > self.decode_rows > 0:
            raise ValueError(f"EngineConfig.{self.min_decode_rows=} must be <= {self.decode_rows=}")
        if self.pages is not None:
            self.pages.check_rows(self.max_tokens, self.decode_rows)

    @property
    def num_cache_rows(self) -> int:
        return self.cache_rows or self.decode_rows

    @property
    def widths(self) -> tuple[int, ...]:
        """Rows that a window can decode."""
        return doublings(self.min_decode_rows or self.decode_rows, self.decode_rows)

    @property
    def views(self) -> tuple[int, ...]:
        views = doublings(self.min_view, self.max_tokens)
        if self.pages is None:
            return views
        return tuple(sorted({self.pages.pages_of(v) * self.pages.page_tokens for v in views}))

    @property
    def prompt_buckets(self) -> tuple[int, ...]:
        return doublings(self.min_prompt_bucket, self.max_tokens)

    def bucket_of(self, prompt_tokens: int) -> int:
        """The shortest bucket that holds all but the last token of a prompt, which prefill leaves out."""
        wanted = prompt_tokens - 1
        return next((b for b in self.prompt_buckets if b >= wanted), self.prompt_buckets[-1])

    def chunk_of(self, bucket: int) -> int:
        """Columns of a bucket that one prefill call runs."""
        return min(self.prefill_chunk or bucket, bucket)


@dataclasses.dataclass(kw_only=True)
class EngineCounts:
    """Work done since the engine was made."""

    windows: int = 0
    steps: int = 0
    row_steps: int = 0  # steps x rows decoded: what the device paid for
    useful_row_steps: int = 0  # those in which the row ran, on a sampled or a tool token
    sampled_tokens: int = 0
    prefilled_tokens: int = 0  # prompt tokens run, once per problem
    appended_tokens: int = 0  # tool tokens, riding or by chunk
    reprefilled_tokens: int = 0  # tokens run a second time; 0 is the promise
    moved_rows: int = 0  # to the memory of the host, where the pool of pages was dry
    moved_pages: int = 0  # there and back
    late_programs: int = 0  # programs first used after `compile`: each is a stall; 0 is the promise


def doublings(first: int, last: int) -> tuple[int, ...]:
    """first, 2 first, 4 first, ..., last."""
    sizes = []
    while first < last:
        sizes.append(first)
        first *= 2
    return (*sizes, last)
