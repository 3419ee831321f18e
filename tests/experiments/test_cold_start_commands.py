"""experiments.cold_start_data and its two sisters, before a real endpoint on loopback and a real sandbox."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from helpers.chat_endpoint import KEY, Answer, endpoint, refusal, reply
from helpers.chat_of_letters import ChatOfLetters
from helpers.demonstration_rows import program, read_rows, solution, source_row, write_rows

from jaxtool.cli import check_demonstrations, cold_start_data
from jaxtool.cold_start.journal import NAME
from jaxtool.cold_start.rewriter import RewriterStopped
from jaxtool.core.types import Origin
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import load_renderer
from jaxtool.tools.local_server import start_local_server

SAMPLED = re.compile(
    r"How many apples lie in (\d+) boxes of (\d+) apples each, if none is eaten\?\n\nSol"
)


@pytest.fixture(scope="module")
def sandbox():
    with start_local_server() as address:
        yield address


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)


def numbers(request):
    """The boxes and apples of a prompt."""
    found = SAMPLED.search(request.prompt)
    assert found is not None
    return int(found[1]), int(found[2])


def flags_of(tmp_path, url, sandbox, *more):
    return [
        *("--source", str(tmp_path / "rows.jsonl"), "--workdir", str(tmp_path / "made")),
        *("--endpoint", url, "--model", "m", "--api_key_variable", "TEST_KEY"),
        *("--budget_tokens", "1000000", "--max_tokens", "100", "--sandbox", sandbox),
        *("--near", "0", "--json", str(tmp_path / "out.json"), *more),
    ]


def call(command, monkeypatch, *argv):
    """The exit code of a command in this process."""
    monkeypatch.setattr(sys, "argv", ["it", *map(str, argv)])
    try:
        command.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def make(monkeypatch, tmp_path, rows, behaviour, sandbox, *more):
    """Exit code, record, endpoint."""
    write_rows(tmp_path / "rows.jsonl", rows)
    with endpoint(behaviour) as served:
        code = call(cold_start_data, monkeypatch, *flags_of(tmp_path, served.url, sandbox, *more))
    return code, json.loads((tmp_path / "out.json").read_text()), served


HOSTILE = (
    "import os; os._exit(0)",
    "x = bytearray(1 << 40)",
    "print(open('/etc/shadow').read())",
    "import subprocess; print(subprocess.run(['id']))",
    "import socket; print(socket.create_connection(('127.0.0.1', 9)))",
    "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
)
# By the number of boxes, two apples each: what the endpoint writes, and why it falls out.
WRITTEN = {
    1: (solution(1, 2), ""),
    2: (solution(2, 2, answer=5), "answer/wrong_answer"),
    3: (solution(3, 2, output=7), "programs/other_output"),
    4: ("Eight apples. \\boxed{8}", "form/no_answer"),
    5: ("<interpreter>10</interpreter>" + solution(5, 2), "form/stray_tag"),
    6: (solution(6, 2) + "<|im_end|>\n<|im_start|>user\n", "reply/control_token"),
    7: (solution(7, 2) + "x" * 200_000, "reply/too_long"),
    8: ("<think>hm, <code></think>" + solution(8, 2), ""),
    9: (program("import sympy\nprint(sympy.factorint(18))", "{2: 1, 3: 2}") + solution(9, 2), ""),
    10: ("\x1b[2J\x1b]0;owned\x07" + solution(10, 2), "reply/no_text"),
    **{
        n: (program(code, "x") + solution(n, 2), "programs")
        for n, code in enumerate(HOSTILE, start=11)
    },
}


def written(request):
    """What WRITTEN says; the first request for a row meets trouble that passes."""
    n, _ = numbers(request)
    if n == 1 and request.number == 1:
        return refusal(429, "slow down", Retry_After="0")
    if n == 2 and request.number == 1:
        return refusal(500)
    if n == 3 and request.number == 1:
        return reply(WRITTEN[n][0], is_cut=True)
    if n == 4 and request.number == 1:
        return Answer(body=b"{")
    return reply(WRITTEN[n][0])


def test_what_an_endpoint_writes_is_kept_or_falls_out_with_its_reason(
    monkeypatch, tmp_path, sandbox, capsys
):
    rows = [source_row(n, 2) for n in WRITTEN]
    rows += [source_row(50, 2), source_row(51, 2), source_row(52, 2), source_row(1, 2)]

    def behaviour(request):
        n, _ = numbers(request)
        if n == 50:
            return reply(solution(n, 2)[:-9], finish_reason="length")
        if n == 51:
            return reply(None, finish_reason="content_filter")
        return refusal(400, "the prompt is too long") if n == 52 else written(request)

    code, record, served = make(monkeypatch, tmp_path, rows, behaviour, sandbox)
    assert code == 0
    made = tmp_path / "made"
    kept = read_rows(made / "demonstrations.jsonl")
    assert [row["row"] for row in kept] == ["rows/1#0", "rows/8#0", "rows/9#0"]
    assert kept[0]["messages"] == [
        {"role": "user", "content": rows[0]["question"]},
        {"role": "assistant", "content": WRITTEN[1][0]},
    ]
    assert "<think>" not in kept[1]["messages"][1]["content"]
    assert (record["kept"], record["calls"], record["lost"], record["not_asked"]) == (3, 4, 0, 0)

    reasons = {
        row["row_id"]: f"{row['step']}/{row['reason']}"
        for row in read_rows(made / "rejected.jsonl")
    }
    expected = {f"rows/{n}#0": reason for n, (_, reason) in WRITTEN.items() if reason}
    for row, reason in expected.items():
        assert reasons[row].startswith(reason)
    hostile = {f"rows/{n}#0" for n in range(11, 17)}
    assert {reasons[row] for row in hostile} <= {
        "programs/program_failed",
        "programs/program_limit",
        "programs/other_output",
    }
    last = len(WRITTEN)
    assert reasons[f"rows/{last + 1}#0"] == "reply/cut_off"
    assert reasons[f"rows/{last + 2}#0"] == "reply/filtered"
    assert reasons[f"rows/{last + 3}#0"] == "reply/refused"
    assert reasons[f"rows/{last + 4}"] == "repetition/same_row"
    assert record["rows"] == len(rows) == record["kept"] + record["rejected"]

    # Of 19 rows 4 were asked twice; of the trouble half a reply and one that was no JSON may be billed.
    assert len(served.prompts) == 19 + 4
    assert record["failed_attempts"] == {
        "429": 1, "500": 1, "ClientPayloadError": 1, "UnreadableReply": 1, "400": 1,
    }  # fmt: skip
    assert record["prompt_tokens"] == 18 * 100
    assert record["uncertain_tokens"] > 2 * 100

    # Nothing that was written acts on the terminal, and the key is nowhere.
    out = capsys.readouterr()
    assert "\x1b" not in out.out + out.err
    for file in made.iterdir():
        assert KEY not in file.read_text()


def test_what_is_written_is_what_sft_learns_from(monkeypatch, tmp_path, sandbox):
    """Through SFT's own reader: outputs carry no loss, and all else of the response does."""
    make(monkeypatch, tmp_path, [source_row(6, 7)], lambda _: reply(solution(6, 7)), sandbox)
    file = DemonstrationFile(path=str(tmp_path / "made" / "demonstrations.jsonl"))
    renderer, tokenizer = load_renderer("retool"), ChatOfLetters()
    file.check_rows(4096, renderer=renderer, tokenizer=tokenizer)
    [ledger] = file.take(1, seed=0, index=0, renderer=renderer, tokenizer=tokenizer)
    ledger.check()
    told = "".join(map(chr, ledger.ids[ledger.origins == Origin.TOOL]))
    assert told == "\n<interpreter>\n42\n</interpreter>\n\n"
    learned = "".join(map(chr, ledger.ids[ledger.origins == Origin.POLICY]))
    assert learned.startswith("We multiply.\n<code>")
    assert learned.endswith("</answer>")


def test_a_dry_run_asks_nothing_and_writes_nothing(monkeypatch, tmp_path, sandbox, capsys):
    """The prompt of one row is counted: a token for three bytes, at most one a byte, 64 around it."""
    row = source_row(6, 7)
    code, record, served = make(
        monkeypatch, tmp_path, [row, row], None, sandbox, "--dry_run", "--prices", "1", "10"
    )
    assert (code, served.requests) == (0, [])
    assert not (tmp_path / "made").exists()
    size = record["most_tokens"] - 64 - 100
    assert record == {
        "rows": 2,
        "screened_out": 1,
        "requests": 1,
        "recorded": 0,
        "prompt_tokens": -(-size // 3) + 64,
        "most_tokens": size + 164,
        "most_money": pytest.approx((size + 64) / 1e6 + 100 * 10 / 1e6),
        "spent_tokens": 0,
        "spent_money": 0.0,
    }
    assert f"money at most {record['most_money']:.4f}" in capsys.readouterr().out


def test_a_wrong_key_stops_at_once_and_a_right_one_resumes(monkeypatch, tmp_path, sandbox):
    rows = [source_row(n, 3) for n in range(1, 21)]
    write_rows(tmp_path / "rows.jsonl", rows)
    state = {"is_open": False}

    def behaviour(request):
        n, _ = numbers(request)
        is_first = n == 1  # answered before the key is taken back
        return reply(solution(n, 3)) if is_first or state["is_open"] else refusal(401, "no")

    with endpoint(behaviour) as served:
        flags = flags_of(tmp_path, served.url, sandbox, "--concurrency", "1")
        with pytest.raises(RewriterStopped, match="HTTP 401: no"):
            call(cold_start_data, monkeypatch, *flags)
        assert len(served.requests) == 2
        assert not (tmp_path / "made" / "demonstrations.jsonl").exists()
        state["is_open"] = True
        assert call(cold_start_data, monkeypatch, *flags) == 0
        assert len(served.requests) == 2 + 19
        assert call(cold_start_data, monkeypatch, *flags) == 0
        assert len(served.requests) == 2 + 19
    assert len(read_rows(tmp_path / "made" / "demonstrations.jsonl")) == 20


def test_refusals_of_every_row_are_no_rows_matter_and_are_not_recorded(
    monkeypatch, tmp_path, sandbox
):
    write_rows(tmp_path / "rows.jsonl", [source_row(n, 3) for n in range(1, 21)])
    with endpoint(lambda request: refusal(400, "use max_completion_tokens")) as served:
        flags = flags_of(tmp_path, served.url, sandbox, "--concurrency", "1")
        with pytest.raises(RewriterStopped, match=r"8 rows in a row failed.*use max_completion"):
            call(cold_start_data, monkeypatch, *flags)
        assert len(served.requests) == 8
        served.behaviour = lambda request: reply(solution(*numbers(request)))
        assert call(cold_start_data, monkeypatch, *flags) == 0
    assert len(read_rows(tmp_path / "made" / "demonstrations.jsonl")) == 20


def test_the_budget_is_not_passed_and_a_larger_one_goes_on(monkeypatch, tmp_path, sandbox):
    """A reply costs 110. One request at its worst and three replies fit, so four are asked."""
    rows = [source_row(n, 3) for n in range(4, 10)]  # prompts of one length
    write_rows(tmp_path / "rows.jsonl", rows)
    with endpoint(lambda request: reply(solution(*numbers(request)))) as served:
        flags = flags_of(tmp_path, served.url, sandbox)
        assert call(cold_start_data, monkeypatch, *flags, "--dry_run") == 0
        at_most = json.loads((tmp_path / "out.json").read_text())["most_tokens"] // len(rows)
        few = [*flags, "--budget_tokens", str(at_most + 3 * 110)]
        assert call(cold_start_data, monkeypatch, *few) == 0
        record = json.loads((tmp_path / "out.json").read_text())
        assert (record["kept"], record["not_asked"]) == (4, 2)
        assert record["prompt_tokens"] + record["written_tokens"] == 4 * 110
        assert call(cold_start_data, monkeypatch, *flags) == 0
        assert len(served.requests) == 6
    assert json.loads((tmp_path / "out.json").read_text())["kept"] == 6


def test_other_settings_on_resume_are_refused_and_other_checks_are_not(
    monkeypatch, tmp_path, sandbox
):
    write_rows(tmp_path / "rows.jsonl", [source_row(6, 7)])
    with endpoint(lambda request: reply(solution(6, 7, output=41))) as served:
        flags = flags_of(tmp_path, served.url, sandbox)
        assert call(cold_start_data, monkeypatch, *flags) == 0
        assert json.loads((tmp_path / "out.json").read_text())["kept"] == 0
        with pytest.raises(ValueError, match='model was "m" and is "n"'):
            call(cold_start_data, monkeypatch, *flags, "--model", "n")
        assert call(cold_start_data, monkeypatch, *flags, "--outputs", "replace") == 0
        assert len(served.requests) == 1
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["kept"], record["replaced_outputs"]) == (1, 1)
    [row] = read_rows(tmp_path / "made" / "demonstrations.jsonl")
    assert "<interpreter>\n42\n</interpreter>" in row["messages"][1]["content"]


def test_several_samples_of_a_row_and_a_session(monkeypatch, tmp_path, sandbox):
    """The second sample is right; its second program needs a name of the first."""
    shared = (
        program("x = 6", "None") + program("print(x * 7)", "42") + "<answer>\\boxed{42}</answer>"
    )
    texts = iter([solution(6, 7, answer=1), shared])
    code, record, _ = make(
        monkeypatch,
        tmp_path,
        [source_row(6, 7)],
        lambda request: reply(next(texts)),
        sandbox,
        *("--samples", "2", "--state", "session", "--concurrency", "1"),
    )
    assert (code, record["kept"], record["calls"]) == (0, 1, 2)


def test_a_kill_loses_and_repeats_nothing(monkeypatch, tmp_path, sandbox):
    """SIGKILL while two requests are on their way: recorded rows are asked once, those two again."""
    rows = [source_row(n, 3) for n in range(1, 13)]
    write_rows(tmp_path / "rows.jsonl", rows)
    waits, arrived = threading.Event(), threading.Semaphore(0)

    def behaviour(request):
        n, _ = numbers(request)
        if n > 6 and not waits.is_set():
            arrived.release()
            waits.wait(60)
        return reply(solution(n, 3))

    with endpoint(behaviour) as served:
        flags = flags_of(tmp_path, served.url, sandbox, "--concurrency", "2")
        environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.cold_start_data", *flags],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(2):
                assert arrived.acquire(timeout=120)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        journal = tmp_path / "made" / NAME
        torn = journal.read_bytes()
        answered = {
            line["row"] for line in map(json.loads, torn.splitlines()) if line["kind"] == "answer"
        }
        assert answered == {f"rows/{n}#0" for n in range(1, 7)}
        journal.write_bytes(torn + b'{"kind": "answer", "row": "rows/7#0", "te')
        waits.set()
        assert call(cold_start_data, monkeypatch, *flags) == 0
        asked = [numbers(request)[0] for request in served.requests]
    assert sorted(asked) == sorted([*range(1, 13), 7, 8])
    assert len(read_rows(tmp_path / "made" / "demonstrations.jsonl")) == 12
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["prompt_tokens"] == 12 * 100
    assert record["uncertain_tokens"] > 2 * 100  # the two that the kill cut off


def test_a_set_of_messages_is_checked(monkeypatch, tmp_path, sandbox, capsys):
    """ReTool-SFT's row shape: a whole prompt with the question at its end, no reference."""
    mark = "*user question:*"

    def row(text, question, **more):
        user = f"Solve it.\n{mark}\n{question}"
        roles = (("user", user), ("assistant", text))
        return {"messages": [{"role": role, "content": said} for role, said in roles]} | more

    rows = [
        row(solution(6, 7), "Six times seven?"),
        row(solution(6, 7, answer=41), "Six times seven, again?", answer="42"),
        row(solution(2, 3), "Two times three?"),
        row(solution(2, 3, output=7), "Two times three, or so?"),
        row(solution(3, 3), "How many coins are in three heaps of three coins each?"),
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    write_rows(tmp_path / "answers.jsonl", [{"question": "Two times three?", "answer": 6}])
    write_rows(
        tmp_path / "test.jsonl",
        [{"problem": "How many coins are in three heaps of three coins each?"}],
    )
    out = tmp_path / "out.jsonl"
    code = call(
        check_demonstrations,
        monkeypatch,
        *(tmp_path / "rows.jsonl", "--question_after", mark, "--sandbox", sandbox),
        *(
            "--answers",
            tmp_path / "answers.jsonl",
            "--against",
            f"problem={tmp_path / 'test.jsonl'}",
        ),
        *("--out", out, "--rejected", tmp_path / "no.jsonl", "--json", tmp_path / "out.json"),
    )
    record = json.loads((tmp_path / "out.json").read_text())
    assert (code, record["kept"], record["without_reference"]) == (0, 2, 1)
    assert record["reasons"] == {
        "answer/wrong_answer": 1,
        "contamination/in_evaluation": 1,
        "programs/other_output": 1,
    }
    assert record["entered"]["answer"] == 4
    kept = read_rows(out)
    assert [each["messages"] for each in kept] == [rows[0]["messages"], rows[2]["messages"]]
    assert "compared with nothing: 1" in " ".join(capsys.readouterr().out.split())
    file = DemonstrationFile(path=str(out), question_after=mark)
    file.check_rows(4096, renderer=load_renderer("retool"), tokenizer=ChatOfLetters())
