"""Preflight passes on a real sandbox and names what is wrong in one line otherwise."""

import asyncio

import pytest
from helpers.fakes import ArithmeticTool, FailingTool, ScriptedTool

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.preflight import ENDLESS, SNIPPETS, PreflightError, Snippet, mismatch, preflight
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from jaxtool.train.sources import Sandbox, open_known_answers


def test_a_real_sandbox_answers_all_snippets():
    async def main(address: str) -> int:
        client = SandboxClient([address], SandboxClientConfig(cpu_limit_s=0.5))
        try:
            return (await preflight(client, client)).num_snippets
        finally:
            await client.close()

    with start_local_server() as address:
        assert asyncio.run(main(address)) == len(SNIPPETS) + 1 >= 25
        ask_during_a_run(address)


def ask_during_a_run(address: str) -> None:
    """The same server knows them later on; one that is not there is unreachable, not wrong."""
    sandbox = Sandbox(client=SandboxClientConfig(result_cache_entries=100, backoff_s=0.01))
    addresses = address, "127.0.0.1:9"
    with asyncio.Runner() as runner, open_known_answers(sandbox, runner, addresses) as known:
        for number in (0, 13, 25):
            found = runner.run(known.ask(number))
            assert (found.programs, found.wrong) == (4, "")
            [line] = found.unreachable
            assert "127.0.0.1:9" in line


def test_snippet_names_are_unique():
    assert len({snippet.name for snippet in SNIPPETS}) == len(SNIPPETS)


def test_a_sandbox_whose_random_numbers_are_not_pythons_is_refused():
    wrong = next(snippet for snippet in SNIPPETS if "random.seed" in snippet.code)
    assert "expected '0.3238" in mismatch(wrong, ToolResult(status=ToolStatus.OK, stdout="0.5\n"))


def test_a_tool_that_answers_wrong_is_named_with_expected_and_got():
    with pytest.raises(PreflightError) as caught:
        asyncio.run(preflight(ArithmeticTool(), ArithmeticTool()))
    message = str(caught.value)
    assert message == (
        "preflight 'echo after statements': status: expected 'ok', got 'error' "
        "('ValueError: this fake knows print(<expr>) and <expr> only\\n')"
    )
    results = {s.code: ToolResult(status=ToolStatus.OK, stdout="3\n") for s in SNIPPETS}
    with pytest.raises(PreflightError, match=r"'print': stdout: expected '2\\n', got '3\\n'"):
        asyncio.run(preflight(ScriptedTool(results), ScriptedTool({})))


def test_a_missing_server_is_one_line_with_address_and_remedy():
    async def main() -> None:
        config = SandboxClientConfig(attempts=2, backoff_s=0.01)
        client = SandboxClient(["127.0.0.1:9"], config)
        try:
            await preflight(client, client)
        finally:
            await client.close()

    with pytest.raises(PreflightError, match=r"127\.0\.0\.1:9") as caught:
        asyncio.run(main())
    assert "python -m sandbox_server" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unavailability_midway_names_the_snippet():
    class _OnceThenGone(FailingTool):
        async def execute(self, code: str) -> ToolResult:
            if code == "print(1)":
                return ToolResult(status=ToolStatus.OK)
            return await super().execute(code)

    with pytest.raises(PreflightError, match="'print': sandbox at fake"):
        asyncio.run(preflight(_OnceThenGone(ArithmeticTool(), failures=99), ArithmeticTool()))


def test_mismatch_checks_every_field_that_is_given():
    snippet = Snippet(name="x", code="x", last_value="1", stderr_has="word")
    good = ToolResult(status=ToolStatus.OK, last_value="1", stderr="a word")
    assert mismatch(snippet, good) == ""
    assert "last_value" in mismatch(snippet, ToolResult(status=ToolStatus.OK, last_value="2"))
    assert "stderr" in mismatch(snippet, ToolResult(status=ToolStatus.OK, last_value="1"))
    assert "status" in mismatch(snippet, ToolResult(status=ToolStatus.KILLED))


def test_a_busy_machine_may_end_the_endless_loop_by_the_clock():
    for status in (ToolStatus.CPU_LIMIT, ToolStatus.WALL_LIMIT):
        assert mismatch(ENDLESS, ToolResult(status=status)) == ""
    assert "expected 'cpu_limit', got 'ok'" in mismatch(ENDLESS, ToolResult(status=ToolStatus.OK))


def test_a_tool_without_limits_is_named():
    """Everything else right, and the endless program has come to an end by itself."""
    right = {
        s.code: ToolResult(
            status=s.status,
            stdout=s.stdout or "",
            last_value=s.last_value or "",
            error_type=s.error_type or "",
            stderr=s.stderr_has or "",
        )
        for s in SNIPPETS
    }
    boundless = ScriptedTool({ENDLESS.code: ToolResult(status=ToolStatus.OK)})
    with pytest.raises(PreflightError, match="'time-out': status: expected 'cpu_limit', got 'ok'"):
        asyncio.run(preflight(ScriptedTool(right), boundless))
