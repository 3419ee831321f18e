"""Many requests side by side: what is lost is asked again, the disk may fill up, the order is the file's."""

import asyncio

import pytest
from helpers.chat_endpoint import endpoint, refusal, reply

from jaxtool.cold_start.chat_client import EndpointConfig
from jaxtool.cold_start.journal import Journal, open_journal, recorded_in
from jaxtool.cold_start.prompt import RewritePrompt
from jaxtool.cold_start.rewriter import RewriterStopped
from jaxtool.cold_start.rewriting import candidates_of, estimate, requests_of, rewrite
from jaxtool.cold_start.source_rows import SourceRow
from jaxtool.cold_start.spending import Budget, Prices, Tokens

ROWS = [
    SourceRow(where=f"f:{n}", row_id=f"f/{n}", question=f"q{n}.", reasoning="r", answers=("1",))
    for n in range(1, 13)
]
PROMPT = RewritePrompt(text="{{question}}{{reasoning}}")


def asked(tmp_path, behaviour, *, samples=1, concurrency=4):
    """One start: how the asking ended."""
    requests = requests_of(ROWS, samples)
    with (
        endpoint(behaviour) as served,
        open_journal(tmp_path, {}) as (journal, recorded),
    ):
        done: list[int] = []
        rewritten = asyncio.run(
            rewrite(
                requests,
                prompt=PROMPT,
                rewriter=EndpointConfig(
                    base_url=served.url,
                    model="m",
                    api_key_variable="NO_SUCH_KEY",
                    concurrency=concurrency,
                    attempts=2,
                    backoff_s=0.001,
                    max_tokens=10,
                ),
                budget=Budget(tokens=1_000_000),
                prices=Prices(),
                journal=journal,
                recorded=recorded,
                on_row=done.append,
            )
        )
    assert done == sorted(done)
    return requests, rewritten, served


def test_rows_that_are_lost_are_counted_and_asked_again_by_the_next_start(tmp_path):
    def flaky(request):
        return refusal(500) if request.prompt.startswith("q3.") else reply("x")

    requests, first, served = asked(tmp_path, flaky)
    assert first.lost.keys() == {"f/3#0"}
    assert "HTTP 500" in first.lost["f/3#0"]
    assert len(first.answers) == 11
    assert len(served.requests) == 11 + 2
    assert "f/3#0" not in {each.row_id for each in candidates_of(requests, first)}
    requests, second, served = asked(tmp_path, lambda request: reply("y"))
    assert served.prompts == ["q3.r"]
    texts = {
        each.row_id: each.conversation.turns[1].text for each in candidates_of(requests, second)
    }
    assert texts == {f"f/{n}#0": "y" if n == 3 else "x" for n in range(1, 13)}


def test_candidates_come_in_the_order_of_rows_and_then_of_samples(tmp_path):
    requests, rewritten, _ = asked(tmp_path, lambda request: reply("x"), samples=2)
    names = [each.row_id for each in candidates_of(requests, rewritten)]
    assert names == [f"f/{n}#{sample}" for n in range(1, 13) for sample in range(2)]
    assert [request.key for request in requests[:2]] == ["f/1#0", "f/2#0"]


def test_an_endpoint_that_is_down_stops_the_run(tmp_path):
    with pytest.raises(
        RewriterStopped, match=r"8 rows in a row failed.*HTTP 500.*same command resumes"
    ):
        asked(tmp_path, lambda request: refusal(500), concurrency=1)
    assert not recorded_in(tmp_path, {}).answers


def test_an_estimate_by_hand(tmp_path):
    """Of 12 prompts of 4 or 5 bytes one is recorded: 8 x 4 + 3 x 5 bytes, 64 around each of 11."""
    with open_journal(tmp_path, {}) as (journal, _):
        journal.refused("f/1#0", "too long")
    recorded = recorded_in(tmp_path, {})
    rewriter = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", max_tokens=10)
    found = estimate(requests_of(ROWS, 1), PROMPT, rewriter, recorded)
    assert (found.requests, found.recorded) == (11, 1)
    assert found.most == Tokens(prompt=8 * 4 + 3 * 5 + 11 * 64, written=110)
    assert found.prompt_tokens == 11 * (2 + 64)


def test_a_full_disk_ends_in_one_line_and_loses_no_line_before(tmp_path, monkeypatch):
    written = []
    append = Journal.answer

    def full(self, row, answer):
        if len(written) == 3:
            raise OSError("journal.jsonl: no room for another line: free some and start again")
        written.append(row)
        append(self, row, answer)

    monkeypatch.setattr(Journal, "answer", full)
    with pytest.raises(OSError, match="no room for another line"):
        asked(tmp_path, lambda request: reply("x"))
    monkeypatch.undo()
    assert set(recorded_in(tmp_path, {}).answers) == set(written)
    _, rewritten, _ = asked(tmp_path, lambda request: reply("y"))
    assert len(rewritten.answers) == 12


def test_what_a_finish_reason_says(tmp_path):
    reasons = {"q1.r": "length", "q2.r": "content_filter"}

    def behaviour(request):
        return reply("text", finish_reason=reasons.get(request.prompt, "stop"))

    requests, rewritten, _ = asked(tmp_path, behaviour)
    faults = [each.fault for each in candidates_of(requests, rewritten)]
    assert [None if fault is None else fault.reason for fault in faults[:3]] == [
        "cut_off",
        "filtered",
        None,
    ]
