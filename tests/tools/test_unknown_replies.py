"""A sandbox server of another version: what the client cannot read is trouble, never a crash or a result."""

import asyncio

import grpc
import grpc.aio
import pytest

from jaxtool.core.types import ToolStatus, ToolUnavailable
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig
from jaxtool.tools.sandbox_session import SessionLost
from jaxtool.tools.sandbox_wire import UnknownReply, result_of, retry_after_s
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

CONFIG = SandboxClientConfig(attempts=3, backoff_s=0.001, queue_allowance_s=5.0)


class Server(sandbox_pb2_grpc.SandboxServicer):
    """Answers with these statuses in turn, the last one for ever; or is busy, with this hint."""

    def __init__(self, *statuses, hint=None, session_id="s"):
        self.statuses, self.hint, self.session_id = list(statuses), hint, session_id
        self.calls = 0

    async def Execute(self, request, context):
        self.calls += 1
        if self.hint is not None and self.calls == 1:
            context.set_trailing_metadata((("retry-after-ms", self.hint),))
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return pb.ExecuteResponse(status=status, stdout="out")

    async def CreateSession(self, request, context):
        self.calls += 1
        return pb.Session(session_id=self.session_id)

    async def ExecuteInSession(self, request, context):
        return await self.Execute(request, context)


def ask(folder, server, work):
    async def main():
        serving = grpc.aio.server()
        sandbox_pb2_grpc.add_SandboxServicer_to_server(server, serving)
        address = f"unix:{folder}/s"
        serving.add_insecure_port(address)
        await serving.start()
        client = SandboxClient([address], CONFIG)
        try:
            return await work(client), client.stats
        finally:
            await client.close()
            await serving.stop(None)

    return asyncio.run(main())


@pytest.mark.parametrize("status", [0, 99, -1, 2**31 - 1])
def test_an_unknown_status_is_unavailable_after_retries(tmp_path, status):
    server = Server(status)

    async def work(client):
        with pytest.raises(ToolUnavailable, match=f"unknown reply: status {status} is none of"):
            await client.execute("1")

    _, stats = ask(tmp_path, server, work)
    assert server.calls == CONFIG.attempts
    assert (stats.unavailable, stats.executions) == (1, 0)
    assert stats.failures_by_code == {"UNKNOWN_REPLY": 3}


def test_a_readable_status_after_an_unknown_one_is_the_result(tmp_path):
    result, stats = ask(tmp_path, Server(0, pb.STATUS_OK), lambda client: client.execute("1"))
    assert (result.status, result.stdout) == (ToolStatus.OK, "out")
    assert stats.retries == 1


@pytest.mark.parametrize("hint", ["soon", "", "1.5", "-7", "nan", "9" * 30])
def test_an_unreadable_retry_hint_is_no_hint(tmp_path, hint):
    result, stats = ask(
        tmp_path, Server(pb.STATUS_OK, hint=hint), lambda client: client.execute("1")
    )
    assert result.status is ToolStatus.OK
    assert stats.retries == 1


def test_a_session_loses_its_block_but_not_the_run(tmp_path):
    async def work(client):
        session = await client.create_session()
        with pytest.raises(SessionLost, match="unknown reply: status 0"):
            await session.execute("1")
        with pytest.raises(SessionLost, match="has ended"):
            await session.execute("1")

    ask(tmp_path, Server(0), work)


def test_a_session_without_a_name_is_unavailable(tmp_path):
    async def work(client):
        with pytest.raises(ToolUnavailable, match="a session without a name"):
            await client.create_session()

    ask(tmp_path, Server(0, session_id=""), work)


def test_every_status_of_the_wire_but_the_missing_one_is_known():
    for status in pb.Status.values():
        response = pb.ExecuteResponse(status=status)
        if status == pb.STATUS_UNSPECIFIED:
            with pytest.raises(UnknownReply):
                result_of(response)
        else:
            assert result_of(response).status in ToolStatus


def test_a_hint_in_milliseconds_is_read():
    class Error:
        def trailing_metadata(self):
            return (("other", "x"), ("retry-after-ms", self.hint))

    error = Error()
    for hint, seconds in (("250", 0.25), (b"1000", 1.0), (b"\xff", 0.0), ("10000000000", 0.0)):
        error.hint = hint
        assert retry_after_s(error) == seconds
