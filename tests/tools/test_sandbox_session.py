"""Sessions of the client against real servers, and servers that want a certificate and a token."""

import asyncio
import os
import signal
import socket

import pytest
from helpers.certificates import make_certificates
from helpers.sandbox_clients import with_client
from helpers.sandbox_serving import serving

from jaxtool.config import loader
from jaxtool.core.types import ToolStatus, ToolUnavailable
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.sandbox_client import SandboxClientConfig
from jaxtool.tools.sandbox_session import SessionLost
from jaxtool.train.sources import Sandbox, open_sandbox

_QUICK = SandboxClientConfig(cpu_limit_s=0.5, wall_limit_s=4.0, attempts=2, backoff_s=0.01)


@pytest.fixture(scope="module")
def address():
    with start_local_server(flags=("--concurrency", "2")) as started:
        yield started


def _with_client(addresses, work, config=_QUICK):
    return with_client(addresses, work, config)


def test_blocks_share_state_and_branches_part(address):
    async def work(client):
        session = await client.create_session()
        await session.execute("x = [1]")
        branch = await session.fork()
        await branch.execute("x.append(2)")
        values = [(await one.execute("x")).result.last_value for one in (session, branch)]
        too_long = await session.execute("x" * (1 << 20))
        await session.close()
        await branch.close()
        return values, too_long.result.error_type

    assert _with_client([address], work) == (["[1]", "[1, 2]"], "CodeTooLong")


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_a_broken_limit_rolls_back_or_loses_the_session(address, has_checkpoints):
    async def work(client):
        session = await client.create_session(has_checkpoints=has_checkpoints)
        await session.execute("x = 7")
        broken = await session.execute("x = 0\nwhile True: pass")
        assert broken.result.status is ToolStatus.CPU_LIMIT
        assert (broken.is_rolled_back, broken.is_lost) == (has_checkpoints, not has_checkpoints)
        if has_checkpoints:
            assert (await session.execute("x")).result.last_value == "7"
            await session.close()
        with pytest.raises(SessionLost, match="has ended"):
            await session.execute("x")
        assert session.is_lost

    _with_client([address], work)


def test_a_session_stays_on_its_server_and_dies_with_it(address):
    """Nothing is run on the other server: a fresh interpreter would not know x."""
    with serving("--concurrency", "1") as doomed:

        async def work(client):
            session = await client.create_session()
            while session.address != doomed.address:
                await session.close()
                session = await client.create_session()
            await session.execute("x = 1")
            assert (await session.execute("x")).result.last_value == "1"
            os.kill(doomed.pid, signal.SIGKILL)
            doomed.process.wait(10)
            for call in (session.execute, lambda _: session.fork()):
                with pytest.raises(SessionLost):
                    await call("x")
            return (await client.execute("6 * 7")).last_value

        assert _with_client([doomed.address, address], work) == "42"
        assert issubclass(SessionLost, ToolUnavailable), "a rollout masks it"


def test_an_evicted_session_is_a_typed_error():
    with serving("--concurrency", "1", "--session-capacity", "1") as server:

        async def work(client):
            first = await client.create_session()
            await first.execute("x = 1")
            second = await client.create_session()
            with pytest.raises(SessionLost, match="NOT_FOUND"):
                await first.execute("x")
            return (await second.execute("1 + 1")).result.last_value

        assert _with_client([server.address], work) == "2"


def test_a_full_queue_makes_a_block_wait_and_not_fail():
    with serving("--concurrency", "1", "--queue-capacity", "1") as server:

        async def work(client):
            sessions = [await client.create_session() for _ in range(5)]
            blocks = (
                s.execute(f"import time\ntime.sleep(0.1)\n{i}") for i, s in enumerate(sessions)
            )
            return [block.result.last_value for block in await asyncio.gather(*blocks)]

        assert _with_client([server.address], work) == ["0", "1", "2", "3", "4"]


def test_certificate_and_token_from_gin_open_the_door(tmp_path):
    make_certificates(tmp_path)
    token = tmp_path / "token"
    token.write_text("a-good-long-token-for-tests")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    flags = ("--tls-certificate", f"{tmp_path}/server.pem", "--tls-key", f"{tmp_path}/server.key")
    flags += ("--tls-client-ca", f"{tmp_path}/ca.pem", "--token-file", str(token))
    (tmp_path / "run.gin").write_text(f"""
from __gin__ import dynamic_registration
from jaxtool.train import sources
from jaxtool.tools import sandbox_client
sources.Sandbox.addresses = ['127.0.0.1:{port}']
sources.Sandbox.client = @sandbox_client.SandboxClientConfig()
sandbox_client.SandboxClientConfig:
    attempts = 2
    backoff_s = 0.05
    token_file = '{token}'
    tls_ca_file = '{tmp_path}/ca.pem'
    tls_certificate_file = '{tmp_path}/client.pem'
    tls_key_file = '{tmp_path}/client.key'
""")
    sandbox = loader.load(Sandbox, files=[str(tmp_path / "run.gin")], params=())

    async def execute(client):
        session = await client.create_session()
        values = [(await client.execute("1 + 1")).last_value]
        return [*values, (await session.execute("2 + 2")).result.last_value]

    with serving("--address", f"127.0.0.1:{port}", "--concurrency", "1", *flags) as server:
        with asyncio.Runner() as runner, open_sandbox(sandbox, runner) as client:
            assert runner.run(execute(client)) == ["2", "4"]
        authority, client_pair = (
            f"{tmp_path}/ca.pem",
            {
                "tls_certificate_file": f"{tmp_path}/client.pem",
                "tls_key_file": f"{tmp_path}/client.key",
            },
        )
        for settings, word in (
            ({"tls_ca_file": authority, **client_pair}, "UNAUTHENTICATED"),
            ({"tls_ca_file": authority, "token_file": str(token)}, "UNAVAILABLE"),
            ({"tls_ca_file": f"{tmp_path}/stranger.pem", **client_pair}, "UNAVAILABLE"),
            ({"token_file": str(token)}, "UNAVAILABLE"),
        ):

            async def refused(client, word=word):
                with pytest.raises(ToolUnavailable, match=word):
                    await client.execute("1")

            config = SandboxClientConfig(attempts=1, backoff_s=0.01, **settings)
            _with_client([server.address], refused, config)
