"""The whole way with a rewriter that is put in: one that writes well, one that writes badly, both asked once."""

import asyncio
import collections
import dataclasses
import re

from helpers.demonstration_rows import read_rows, solution, source_row, write_rows

from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.checking import CheckSettings
from jaxtool.cold_start.making import Order, make, plan
from jaxtool.cold_start.pipeline import CheckOptions, read_options
from jaxtool.cold_start.source_rows import SourceLayout
from jaxtool.cold_start.spending import UNLIMITED, Prices, Tokens

USED = Tokens(prompt=7, written=5)


@dataclasses.dataclass
class Scripted:
    """Writes a solution of the question in the prompt, wrong for every third row."""

    settings: dict = dataclasses.field(default_factory=lambda: {"policy": "scripted"})
    concurrency: int = 4
    failures: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    asked: list = dataclasses.field(default_factory=list)
    prompts: list = dataclasses.field(default_factory=list)

    def cost(self, prompt):
        return USED.prompt, USED

    def open(self, account, log, prompts):
        del account, log
        self.prompts = list(prompts)
        return self

    async def ask(self, row, prompt):
        await asyncio.sleep(0)
        self.asked.append(row)
        boxes, apples = map(int, re.findall(r"(\d+) (?:boxes|apples)", prompt)[:2])
        wrong = {"answer": 0} if boxes % 3 == 0 else {}
        return Reply(text=solution(boxes, apples, **wrong), finish_reason="stop", used=USED)

    async def close(self):
        pass


def test_any_rewriter_goes_through_the_same_checks_and_is_asked_once(tmp_path):
    rows = [source_row(n, 2) for n in range(1, 7)]
    rewriter = Scripted()
    order = Order(
        source=write_rows(tmp_path / "rows.jsonl", rows),
        layout=SourceLayout(),
        workdir=tmp_path / "made",
        rewriter=rewriter,
        prices=Prices(),
    )
    options = CheckOptions(settings=CheckSettings(near=None))
    planned = plan(order, read_options(options))
    assert (planned.estimate().requests, planned.estimate().most.total) == (6, 6 * 12)
    made = make(planned, UNLIMITED)
    assert len(rewriter.asked) == len(rewriter.prompts) == 6
    kept = read_rows(made.demonstrations)
    assert [row["row"] for row in kept] == [f"rows/{n}#0" for n in (1, 2, 4, 5)]
    reasons = [f"{row['step']}/{row['reason']}" for row in read_rows(made.rejected)]
    assert reasons == ["answer/wrong_answer"] * 2
    make(planned, UNLIMITED)
    assert len(rewriter.asked) == 6
