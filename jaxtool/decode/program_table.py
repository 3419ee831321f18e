"""The decoder's programs, listed once: each with its function, its shapes and its arguments.

The engine calls what is listed here, `compile_ahead` compiles it, and a plan traces it. Publication
is listed in `publish`, where its two programs are: it runs on the learner's mesh.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxtool.decode import paged_programs, programs
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.device_program import DeviceProgram
from jaxtool.decode.draft_lookup import Lookup
from jaxtool.decode.draft_window import DraftRows, draft_window
from jaxtool.decode.sampling import SamplingMode
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import make_cache
from jaxtool.parallel.axis_rules import Sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramTable:
    """Every program that an engine may start.

    | program | compiled for each | does |
    |---|---|---|
    | prefill | prompt bucket | runs prompts, whole or by chunks |
    | place | prompt bucket | copies prefilled prompts into cache rows |
    | append | view | runs a chunk of tool output |
    | window | width, view, sampling mode | decodes up to K steps |
    | draft_window | width, view, sampling mode, columns | the same with drafts |
    | take page, put page | | with `EngineConfig.pages`: a page on its way to the host, and back |

    With pages the cache is a pool of them, and place, append and window take tables of pages in place of
    cache rows (`paged_programs`).
    """

    model: ModelConfig  # the decoder's, see `DecoderNumerics.model`
    config: EngineConfig
    sharding: Sharding
    # Arrays, or shapes with shardings. None in a table whose programs are only called.
    params: Any = None
    cache: Any = None
    is_stop: Any = None

    def all(
        self, sampling_modes: Sequence[SamplingMode], longest_prompt: int
    ) -> list[DeviceProgram]:
        """What rows with these sampling modes and prompts of up to so many tokens can need."""
        config = self.config
        listed = [self.append(view) for view in config.views]
        for view in config.views:
            for width in config.widths:
                for mode in sampling_modes:
                    listed += self.windows(width, view, mode)
        longest = config.bucket_of(longest_prompt)
        for bucket in (bucket for bucket in config.prompt_buckets if bucket <= longest):
            listed += [self.prefill(bucket), self.place(bucket)]
        return listed if config.pages is None else [*listed, self.take_page(), self.put_page()]

    def largest(
        self, sampling_mode: SamplingMode, longest_prompt: int
    ) -> tuple[DeviceProgram, DeviceProgram, DeviceProgram, DeviceProgram]:
        """Window, prefill, place and append at the largest shape of each."""
        view, bucket = self.config.views[-1], self.config.bucket_of(longest_prompt)
        return (
            self.window(self.config.widths[-1], view, sampling_mode),
            self.prefill(bucket),
            self.place(bucket),
            self.append(view),
        )

    def prefill(self, bucket: int) -> DeviceProgram:
        """Prompts of one bucket: (params, tokens), by chunks (params, prompts, tokens, start)."""
        chunk = self.config.chunk_of(bucket)
        tokens = np.zeros((self.config.prefill_rows, chunk), np.int32)
        if chunk == bucket:
            return self._of_model("prefill", (bucket,), programs.prefill, lambda: (tokens,))
        return self._of_model(
            "prefill",
            (bucket,),
            programs.prefill_chunk,
            lambda: (self.prompt_shapes(bucket), tokens, np.int32(0)),
        )

    def place(self, bucket: int) -> DeviceProgram:
        """Prefilled prompts of one bucket into the cache: (cache, prompts, sources, cache_rows).

        With pages (cache, prompts, sources, chunks, pages).
        """
        indices = np.zeros(self.config.prefill_rows, np.int32)
        is_paged = self.config.pages is not None
        return DeviceProgram(
            name="place",
            shape=(bucket,),
            function=paged_programs.place if is_paged else programs.place,
            statics={"sharding": self.sharding},
            arguments=lambda: (
                self.cache,
                self.prompt_shapes(bucket),
                *(indices,) * (3 if is_paged else 2),
            ),
        )

    def append(self, view: int) -> DeviceProgram:
        """A chunk of tool output: (params, cache, cache_rows or table, tokens, starts)."""
        rows = self.config.append_rows
        starts = np.zeros(rows, np.int32)
        tokens = np.zeros((rows, self.config.forced_tokens), np.int32)
        return self._of_model(
            "append",
            (view,),
            programs.append,
            lambda: (self.cache, self._where(rows, view), tokens, starts),
            view=view,
        )

    def window(self, width: int, view: int, sampling_mode: SamplingMode) -> DeviceProgram:
        """K steps of `width` rows: (params, cache, rows, where, least, is_stop)."""
        return self._of_model(
            "window",
            (width, view, sampling_mode),
            programs.window,
            lambda: (
                self.cache,
                programs.idle_rows(width, self.config.forced_tokens),
                self._where(width, view, whole=self.config.num_cache_rows),
                np.int32(1),
                self.is_stop,
            ),
            sampling_mode=sampling_mode,
            steps=self.config.window_steps,
            view=view,
        )

    def take_page(self) -> DeviceProgram:
        """A copy of a page: (cache, page)."""
        return DeviceProgram(
            name="take_page",
            shape=(),
            function=paged_programs.take_page,
            statics={"sharding": self.sharding},
            arguments=lambda: (self.cache, np.int32(0)),
        )

    def put_page(self) -> DeviceProgram:
        """A page from the host: (cache, content, page)."""
        return DeviceProgram(
            name="put_page",
            shape=(),
            function=paged_programs.put_page,
            statics={"sharding": self.sharding},
            arguments=lambda: (self.cache, self.page_shapes(), np.int32(0)),
        )

    def page_shapes(self) -> paged_programs.PageContent:
        """Shapes and shardings of a page on its way."""
        assert self.config.pages is not None
        return paged_programs.page_shapes(self.model, self.config.pages.page_tokens, self.sharding)

    def windows(
        self, width: int, view: int, sampling_mode: SamplingMode
    ) -> tuple[DeviceProgram, ...]:
        """The windows that may decode the same rows: the ordinary one, and those with drafts."""
        drafts = self.config.drafts
        if drafts is None:
            return (self.window(width, view, sampling_mode),)
        wide = [self.draft_window(width, view, sampling_mode, c) for c in drafts.columns]
        if drafts.rounding == "same_program":
            return (wide[-1],)
        return (self.window(width, view, sampling_mode), *wide)

    def window_of(
        self, columns: int, width: int, view: int, sampling_mode: SamplingMode
    ) -> DeviceProgram:
        """The one of `windows` that runs so many tokens of a row in a pass."""
        if columns == 1:
            return self.window(width, view, sampling_mode)
        return self.draft_window(width, view, sampling_mode, columns)

    def draft_window(
        self, width: int, view: int, sampling_mode: SamplingMode, columns: int
    ) -> DeviceProgram:
        """K // C passes over C columns: (params, cache, rows, drafts, where, least, is_stop).

        A row makes at most K tokens, as in `window`, so that the same view holds it.
        """
        drafts = self.config.drafts
        assert drafts is not None
        corpus = drafts.source_tokens + self.config.max_tokens
        return self._of_model(
            "draft_window",
            (width, view, sampling_mode, columns),
            draft_window,
            lambda: (
                self.cache,
                programs.idle_rows(width, self.config.forced_tokens),
                DraftRows(
                    corpus=np.full((width, corpus), -1, np.int32),
                    is_drafting=np.zeros(width, bool),
                ),
                self._where(width, view, whole=self.config.num_cache_rows),
                np.int32(1),
                self.is_stop,
            ),
            sampling_mode=sampling_mode,
            passes=self.config.window_steps // columns,
            columns=columns,
            lookup=Lookup(
                own_start=drafts.source_tokens,
                least_match=drafts.least_match,
                most_match=drafts.most_match,
            ),
            view=view,
        )

    def empty_cache(self) -> Any:
        """The cache of an engine, on its devices."""
        return self._zeros(*self._cache_size)

    def empty_prompts(self, bucket: int) -> Any:
        """What a prefill by chunks starts from, on the devices."""
        return self._zeros(self.config.prefill_rows, bucket)

    def cache_shapes(self) -> Any:
        """Shapes and shardings of `empty_cache`."""
        return self._shapes(*self._cache_size)

    def prompt_shapes(self, bucket: int) -> Any:
        """Shapes and shardings of what `prefill` gives."""
        return self._shapes(self.config.prefill_rows, bucket)

    def is_stop_shape(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (self.model.vocab_size,), bool, sharding=self.sharding.named(None)
        )

    @property
    def _cache_size(self) -> tuple[int, int]:
        """Rows of the cache and their positions; with pages, pages and theirs."""
        pages = self.config.pages
        if pages is None:
            return self.config.num_cache_rows, self.config.max_tokens
        return pages.num_pages, pages.page_tokens

    def _where(self, rows: int, view: int, *, whole: int | None = None) -> np.ndarray | None:
        """Of so many rows, see `programs.window`: with pages a table without any; None where they are `whole`."""
        pages = self.config.pages
        if pages is not None:
            return np.full((rows, pages.pages_of(view)), pages.num_pages, np.int32)
        return None if rows == whole else np.zeros(rows, np.int32)

    def _of_model(
        self, name: str, shape: tuple[int | str, ...], function: Any, rest: Any, **statics: Any
    ) -> DeviceProgram:
        """A program whose first argument is the parameters and that knows the model."""
        return DeviceProgram(
            name=name,
            shape=shape,
            function=function,
            statics={"config": self.model, "sharding": self.sharding, **statics},
            arguments=lambda: (self.params, *rest()),
        )

    def _zeros(self, rows: int, positions: int) -> Any:
        return programs.empty_cache(
            config=self.model, sharding=self.sharding, rows=rows, positions=positions
        )

    def _shapes(self, rows: int, positions: int) -> Any:
        shapes = jax.eval_shape(lambda: make_cache(self.model, rows, positions))
        return jax.tree.map(
            lambda x, placed: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
            shapes,
            programs.cache_shardings(shapes, self.sharding),
        )
