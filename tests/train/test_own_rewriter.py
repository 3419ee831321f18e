"""A policy of ours as the rewriter: the same replies whoever is beside them, kills that cost nothing, bad input refused."""

import asyncio
import collections
import dataclasses
import json
import re
import sys

import pytest
from helpers.demonstration_rows import read_rows, solution, source_row, write_rows
from helpers.tiny_hf import CONTEXT, write_model

from jaxtool.cli import cold_start_data
from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.checking import CheckSettings
from jaxtool.cold_start.journal import NAME, Journal, open_journal, recorded_in
from jaxtool.cold_start.making import Order, make, plan
from jaxtool.cold_start.pipeline import CheckOptions, read_options
from jaxtool.cold_start.prompt import RewritePrompt
from jaxtool.cold_start.rewriting import requests_of, rewrite
from jaxtool.cold_start.source_rows import SourceLayout, SourceRow
from jaxtool.cold_start.spending import UNLIMITED, Budget, Prices, Tokens
from jaxtool.tools.local_server import start_local_server
from jaxtool.train.own_rewriter import PolicyRewriter, files_mark

PROMPT = RewritePrompt(text="{{question}} {{reasoning}}")
ROWS = [
    SourceRow(where=f"f:{n}", row_id=f"f/{n}", question="q" * n, reasoning="why", answers=("1",))
    for n in range(1, 8)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("rewriter") / "model")


@pytest.fixture(scope="module")
def sandbox():
    with start_local_server() as address:
        yield address


def rewriter_of(model, **settings):
    return PolicyRewriter(policy=str(model), **({"max_tokens": 12} | settings))


def rewritten(workdir, rewriter, rows=ROWS, budget=UNLIMITED):
    """One start: how the asking ended."""
    with open_journal(workdir, rewriter.settings) as (journal, recorded):
        return asyncio.run(
            rewrite(
                requests_of(rows, 1),
                prompt=PROMPT,
                rewriter=rewriter,
                budget=budget,
                prices=Prices(),
                journal=journal,
                recorded=recorded,
            )
        )


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """All rows in one start, nothing in between."""
    return rewritten(tmp_path_factory.mktemp("whole"), rewriter_of(model))


def test_each_row_has_its_own_reply_with_its_tokens(model, whole):
    assert whole.answers.keys() == {f"{row.row_id}#0" for row in ROWS}
    assert len({reply.text for reply in whole.answers.values()}) == len(ROWS)
    rewriter = rewriter_of(model)
    for row in ROWS:
        reply = whole.answers[f"{row.row_id}#0"]
        assert reply.used is not None
        assert reply.used.prompt == len(rewriter.prompt_ids(PROMPT.of(row)))
        assert 1 <= reply.used.written <= 12
        assert reply.finish_reason == ("length" if reply.used.written == 12 else "stop")
    assert whole.spent.total == sum(reply.used.total for reply in whole.answers.values())
    assert (whole.uncertain.total, whole.failures, whole.lost) == (0, {}, {})


def test_a_stop_in_the_middle_loses_and_repeats_nothing(model, whole, tmp_path, monkeypatch):
    """The disk is full at the third reply; the start that follows draws the same replies for the other rows."""
    told, answer = [], Journal.answer

    def full(self, row, reply):
        if len(told) == 2:
            raise OSError("no room for another line")
        told.append(row)
        answer(self, row, reply)

    monkeypatch.setattr(Journal, "answer", full)
    rewriter = rewriter_of(model)
    with pytest.raises(OSError, match="no room for another line"):
        rewritten(tmp_path, rewriter)
    assert set(recorded_in(tmp_path, rewriter.settings).answers) == set(told)
    monkeypatch.setattr(
        Journal, "answer", lambda self, row, reply: (told.append(row), answer(self, row, reply))
    )
    again = rewritten(tmp_path, rewriter)
    assert sorted(told) == sorted(whole.answers)
    assert again.answers == whole.answers
    assert again.spent == whole.spent
    assert again.uncertain.total == 0


def test_another_seed_draws_other_replies_and_is_another_directory(model, whole, tmp_path):
    other = rewritten(tmp_path, rewriter_of(model, seed=1), ROWS[:2])
    for key, reply in other.answers.items():
        assert reply.text != whole.answers[key].text
    with pytest.raises(ValueError, match="seed was 1 and is 0"):
        rewritten(tmp_path, rewriter_of(model), ROWS[:2])


def test_a_budget_of_tokens_is_not_passed(model, tmp_path):
    """One row at its worst, and no more: it is asked, and no other."""
    rewriter = rewriter_of(model)
    most = max(rewriter.cost(PROMPT.of(row))[1].total for row in ROWS)
    found = rewritten(tmp_path, rewriter, budget=Budget(tokens=most))
    assert (len(found.answers), found.not_asked) == (1, len(ROWS) - 1)
    assert found.spent.total <= most


def test_a_prompt_that_the_context_does_not_hold_falls_out_and_the_others_go_on(model, tmp_path):
    """Ten of them in a row are no sign that nothing can pass."""
    long = [
        SourceRow(
            where=f"g:{n}", row_id=f"g/{n}", question="x y " * CONTEXT, reasoning="", answers=("1",)
        )
        for n in range(10)
    ]
    rewriter = rewriter_of(model)
    found = rewritten(tmp_path, rewriter, [*long, *ROWS[:1]])
    assert len(found.refused) == 10
    assert "more than the model's 4096 positions: lower --max_tokens" in found.refused["g/0#0"]
    assert set(found.answers) == {"f/1#0"}
    with pytest.raises(ValueError, match="no row's is shorter"):
        rewritten(tmp_path / "long", rewriter, long)


def test_what_ends_the_decoder_ends_the_command(model, tmp_path, monkeypatch):
    """And nobody waits for replies that never come."""
    decoder = PolicyRewriter.decoder

    def broken(self, longest, answers):
        collector = decoder(self, longest, answers)
        monkeypatch.setattr(
            collector.engine, "fetch", lambda flight: (_ for _ in ()).throw(RuntimeError("lost"))
        )
        return collector

    monkeypatch.setattr(PolicyRewriter, "decoder", broken)
    with pytest.raises(RuntimeError, match="lost"):
        rewritten(tmp_path, rewriter_of(model), ROWS[:2])


def test_weights_that_changed_have_another_mark(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(3 << 20) + b"end")
    first = files_mark(tmp_path / "a")
    assert files_mark(tmp_path / "b") == first
    (tmp_path / "b" / "model.safetensors").write_bytes(bytes(3 << 20) + b"END")
    assert files_mark(tmp_path / "b") != first
    assert files_mark(tmp_path / "a" / "model.safetensors") != first


def test_limits_of_a_reply(model):
    assert rewriter_of(model, max_tokens=None).reply_tokens == CONTEXT // 2
    with pytest.raises(ValueError, match=r"--max_tokens 4096: .* has positions for 4096 tokens"):
        rewriter_of(model, max_tokens=CONTEXT)
    with pytest.raises(FileNotFoundError, match="there are no weights nowhere"):
        rewriter_of("nowhere")


def call(monkeypatch, *argv):
    monkeypatch.setattr(sys, "argv", ["cold_start_data", *map(str, argv)])
    with pytest.raises(SystemExit) as end:
        cold_start_data.main()
    return end.value.code


def test_the_command_end_to_end(model, tmp_path, sandbox, monkeypatch, capsys):
    """Random weights write no solution: every row falls out at its form, and says why."""
    write_rows(tmp_path / "rows.jsonl", [source_row(n, 3) for n in range(1, 4)])
    out, made = tmp_path / "out.json", tmp_path / "made"
    flags = [
        *("--source", tmp_path / "rows.jsonl", "--workdir", made, "--policy", model),
        *("--max_tokens", 16, "--near", 0, "--json", out),
    ]
    assert call(monkeypatch, *flags, "--dry_run") == 0
    planned = json.loads(out.read_text())
    assert (planned["requests"], made.exists()) == (3, False)
    assert planned["most_tokens"] == planned["prompt_tokens"] + 3 * 16
    assert call(monkeypatch, *flags, "--sandbox", sandbox) == 0
    record = json.loads(out.read_text())
    assert (record["rows"], record["kept"], record["rejected"]) == (3, 0, 3)
    assert record["prompt_tokens"] == planned["prompt_tokens"]
    assert {row["step"] for row in read_rows(made / "rejected.jsonl")} <= {"reply", "form"}
    assert (made / "demonstrations.jsonl").read_text() == ""
    journal = (made / NAME).read_bytes()
    # A second start has nothing to ask, so it reads no weights.
    monkeypatch.setattr(PolicyRewriter, "decoder", None)
    assert call(monkeypatch, *flags, "--sandbox", sandbox) == 0
    assert (made / NAME).read_bytes() == journal
    assert "tokens: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "one rewriter is needed, and neither is given"),
        (["--endpoint", "http://h/v1", "--policy", "p"], "one rewriter is needed, and both are"),
        (["--endpoint", "http://h/v1"], "--endpoint needs --model"),
        (
            ["--policy", "p", "--model", "m", "--attempts", "2"],
            "--model, --attempts: of --endpoint",
        ),
        (["--policy", "p", "--temperature", "-1"], "--temperature below 0"),
        (["--endpoint", "http://h/v1", "--model", "m", "--seed", "3"], "--seed: of --policy alone"),
    ],
)
def test_rewriters_that_are_none_are_refused_in_one_line(
    flags, said, tmp_path, monkeypatch, capsys
):
    rows = write_rows(tmp_path / "rows.jsonl", [source_row(1, 2)])
    assert call(monkeypatch, "--source", rows, "--workdir", tmp_path / "made", *flags) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


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


def test_any_rewriter_goes_through_the_same_checks_and_is_asked_once(tmp_path, sandbox):
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
    made = make(planned, UNLIMITED, sandbox_addresses=(sandbox,))
    assert len(rewriter.asked) == len(rewriter.prompts) == 6
    kept = read_rows(made.demonstrations)
    assert [row["row"] for row in kept] == [f"rows/{n}#0" for n in (1, 2, 4, 5)]
    reasons = [f"{row['step']}/{row['reason']}" for row in read_rows(made.rejected)]
    assert reasons == ["answer/wrong_answer"] * 2
    make(planned, UNLIMITED, sandbox_addresses=(sandbox,))
    assert len(rewriter.asked) == 6
