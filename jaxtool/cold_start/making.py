"""Makes demonstrations of a file of text reasoning: screened, rewritten by an endpoint or a decoder, checked, written.

Everything that can be refused is refused before the first request: source, template, settings of an earlier
start, sandbox, judge. What a kill leaves is gone on with by the same command; the checks cost nothing and are
made anew. Not covered: each of these steps (the other modules of the package).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxtool.cold_start import journal as journals
from jaxtool.cold_start import pipeline, summary
from jaxtool.cold_start.candidates import Rejection
from jaxtool.cold_start.pipeline import Checker
from jaxtool.cold_start.prompt import RewritePrompt, load_prompt
from jaxtool.cold_start.rewriter import Rewriter
from jaxtool.cold_start.rewriting import (
    Estimate,
    Request,
    Rewritten,
    candidates_of,
    estimate,
    requests_of,
    rewrite,
)
from jaxtool.cold_start.screening import Screened, screen
from jaxtool.cold_start.source_rows import SourceLayout, digest, read_source
from jaxtool.cold_start.spending import Budget, Prices
from jaxtool.core.ranges import check_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be made, as the command says it."""

    source: Path
    layout: SourceLayout
    workdir: Path
    rewriter: Rewriter
    prices: Prices
    rows: int | None = None  # the first of the file; None: all
    samples: int = 1  # replies for each row
    prompt: Path | None = None  # template; None: ours

    def __post_init__(self) -> None:
        check_range(self, "rows", "samples", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be asked, and how the replies are checked."""

    order: Order
    checker: Checker
    prompt: RewritePrompt
    screened: Screened
    requests: tuple[Request, ...]
    settings: dict[str, Any]  # that a resumed run must have again

    def estimate(self) -> Estimate:
        """What is still to be asked, and its cost. Writes nothing."""
        recorded = journals.recorded_in(self.order.workdir, self.settings)
        return estimate(self.requests, self.prompt, self.order.rewriter, recorded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """How it ended."""

    summary: summary.Summary
    rewritten: Rewritten
    demonstrations: Path
    rejected: Path


def plan(order: Order, checker: Checker) -> Plan:
    """Reads source and template. Raises ValueError or FileNotFoundError in one line."""
    state = checker.options.settings.run.state
    prompt = load_prompt(order.prompt, checker.renderer, state)
    screened = screen(
        read_source(order.source, order.layout, order.rows),
        judge=checker.judge,
        evaluation=checker.evaluation,
        near=checker.options.settings.near,
    )
    if not screened.rows:
        reasons = sorted({f"{row.step}/{row.reason}" for row in screened.rejected})
        raise ValueError(f"{order.source}: no row is fit to be rewritten ({', '.join(reasons)})")
    return Plan(
        order=order,
        checker=checker,
        prompt=prompt,
        screened=screened,
        requests=tuple(requests_of(screened.rows, order.samples)),
        settings=_settings(order, prompt),
    )


def make(
    planned: Plan,
    budget: Budget,
    *,
    sandbox_addresses: tuple[str, ...] = (),
    on_row: Callable[[int], None] = lambda done: None,
) -> Made:
    """Asks, checks and writes.

    Raises:
      ValueError: the directory was begun with other settings, or another process has it.
      RewriterStopped: no request can pass.
    """
    order, checker = planned.order, planned.checker
    budget.check_prices(order.prices)
    with (
        journals.held_by_one(order.workdir),
        journals.open_journal(order.workdir, planned.settings) as (journal, recorded),
        pipeline.open_tools(checker, sandbox_addresses) as tools,
    ):
        rewritten = tools.runner.run(
            rewrite(
                planned.requests,
                prompt=planned.prompt,
                rewriter=order.rewriter,
                budget=budget,
                prices=order.prices,
                journal=journal,
                recorded=recorded,
                on_row=on_row,
            )
        )
        journal.sync()
        checked = checker.check(candidates_of(planned.requests, rewritten), tools)
        made = summary.summary_of(checked, planned.screened.rejected, _lost(planned, rewritten))
        demonstrations = order.workdir / pipeline.DEMONSTRATIONS
        rejected = order.workdir / pipeline.REJECTED
        pipeline.write_rejected(rejected, made.rejected, made.lost)
        pipeline.write_demonstrations(demonstrations, checked, checker.renderer)
    return Made(summary=made, rewritten=rewritten, demonstrations=demonstrations, rejected=rejected)


def _settings(order: Order, prompt: RewritePrompt) -> dict[str, Any]:
    """What a recorded reply rests on. Checks, prices, budget, patience and the server's address may change."""
    return {
        "source": digest(order.source),
        "layout": dataclasses.asdict(order.layout),
        "prompt": prompt.text,
        **order.rewriter.settings,
    }


def _lost(planned: Plan, rewritten: Rewritten) -> list[Rejection]:
    return [
        Rejection(
            row_id=request.key,
            where=request.row.where,
            step="reply",
            reason="lost",
            detail=rewritten.lost[request.key],
            question=request.row.question,
        )
        for request in planned.requests
        if request.key in rewritten.lost
    ]
