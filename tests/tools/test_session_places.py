"""What a run's sessions ask of its servers, in one line each where they cannot have it; places of a client."""

import asyncio
import dataclasses

import pytest
from helpers.fake_interpreters import FakeRunner

from jaxtool.tools.balancer import Balancer
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.retries import TryAgain
from jaxtool.tools.session_places import SessionNeeds, SessionPlaces, check_session
from sandbox_server.wire import sandbox_pb2 as pb

NEEDS = SessionNeeds(sessions=96, idle_s=600.0)


def info(capacity, idle_s=600.0):
    return pb.InfoResponse(session_capacity=capacity, session_idle_ms=round(idle_s * 1000))


def test_capacity_of_servers_that_do():
    assert NEEDS.capacity_of({"a:1": info(64), "b:1": info(32)}) == {"a:1": 64, "b:1": 32}
    assert NEEDS.capacity_of({"a:1": info(96, idle_s=0)}) == {"a:1": 96}  # does not say


@pytest.mark.parametrize(
    ("needs", "said", "message"),
    [
        ({}, {"a:1": info(64)}, "PythonSandbox.state='trajectory': 96 rows in flight have 96 sessions at once, and the sandbox keeps 64 (64 at a:1): start each server with --session-capacity 96, or set EngineConfig.decode_rows lower"),
        ({}, {"a:1": info(64), "b:1": info(16)}, "keeps 80 (64 at a:1, 16 at b:1): start each server with --session-capacity 48"),
        ({"hosts": 4}, {"a:1": info(128)}, "96 rows in flight on 4 hosts have 384 sessions at once, and the sandbox keeps 128"),
        ({"hosts": 4}, {"unix:/s": info(64)}, "96 rows in flight have 96 sessions at once"),
        ({"sessions": 2000}, {"a:1": info(64)}, "give 2 servers of --session-capacity 1024"),
        ({"idle_s": 900.0}, {"a:1": info(96)}, "the sandbox server at a:1 ends sessions that are idle for 600 s, and PythonSandbox.session_idle_s=900: start it with --session-idle-s 900, or set session_idle_s lower"),
        ({}, {"a:1": info(96), "b:1": "UNAVAILABLE: no"}, "the sandbox server at b:1 cannot be asked: UNAVAILABLE: no"),
    ],
)  # fmt: skip
def test_what_servers_cannot_keep_is_refused_in_one_line(needs, said, message):
    with pytest.raises(PreflightError) as error:
        dataclasses.replace(NEEDS, **needs).capacity_of(said)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_flags_of_a_server_of_the_runs_own():
    assert NEEDS.flags == ("--session-capacity", "96", "--session-idle-s", "600")
    many = SessionNeeds(sessions=5000, idle_s=3600.0)
    assert many.flags == ("--session-capacity", "1024", "--session-idle-s", "3600")
    assert (
        SessionNeeds(sessions=8, idle_s=60.0).flags == SessionNeeds(sessions=64, idle_s=1.0).flags
    )


def test_the_server_with_the_most_room_is_taken_and_a_full_one_never():
    places, balancer = SessionPlaces(["a:1", "b:1"]), Balancer(["a:1", "b:1"])
    places.learn({"a:1": 4, "b:1": 1})
    took = []
    for _ in range(5):
        address = balancer.choose(load=places.load).address
        places.take(address)
        took.append(address)
    assert (took.count("a:1"), took.count("b:1"), places.taken) == (4, 1, 5)
    with pytest.raises(TryAgain, match="all 4 sessions are open") as error:
        places.take("a:1")
    assert error.value.is_busy
    assert not error.value.is_sick
    places.give_back("a:1")
    assert balancer.choose(load=places.load).address == "a:1"


def test_a_session_is_asked_for_a_variable_before_a_run():
    forgets = FakeRunner()  # it knows neither print nor names of earlier programs
    with pytest.raises(PreflightError, match=r"print\(x \+ 1\) after x = 41: expected '42"):
        asyncio.run(check_session(forgets, has_checkpoints=True))
    down = FakeRunner()
    down.is_down = True
    with pytest.raises(PreflightError, match="preflight 'session': sandbox at fake: UNAVAILABLE"):
        asyncio.run(check_session(down, has_checkpoints=True))
