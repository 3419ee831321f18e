"""A notice to stop is seen at once, comes from a signal or a file, and the process ends in time whatever it does."""

import contextlib
import os
import signal
import threading
import time

import pytest

from jaxtool.core.stopped import Stopped
from jaxtool.parallel import hosts
from jaxtool.rundir import stopping
from jaxtool.rundir.stopping import NEVER, StopNotice, ends_on_sigterm


@pytest.fixture(autouse=True)
def _signals_are_as_before(monkeypatch):
    monkeypatch.setattr(stopping, "_POLL_S", 0.02)
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert not [t for t in threading.enumerate() if t.name == "stop notice"]


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sigterm_is_a_notice_and_no_end(tmp_path, capsys):
    called = threading.Event()
    with StopNotice(tmp_path) as stop, stop.noticed(called.set):
        stop.check()
        assert not called.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert called.wait(10)
        with pytest.raises(Stopped) as stopped:
            stop.check()
        assert 0 < stop.left_s < 25
    assert stopped.value.code == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("SIGTERM: the run stops within 25 s; finished answers are kept")


def test_a_file_in_the_work_directory_is_a_notice_and_is_gone_at_the_next_start(tmp_path):
    with StopNotice(tmp_path) as stop:
        (tmp_path / "stop").touch()
        wait_for(lambda: stop.is_asked)
    with StopNotice(tmp_path) as stop:
        assert not (tmp_path / "stop").exists()
        time.sleep(0.1)
        stop.check()


def test_a_process_that_is_stuck_is_ended_in_time_after_its_last_words(tmp_path, capsys):
    ended, said = [], []
    with StopNotice(tmp_path, grace_s=2.2, end=ended.append) as stop:
        stop.before_the_end(lambda: said.append("record"))
        stop.before_the_end(lambda: said.append("rows"))
        stop.before_the_end(lambda: 1 / 0)  # what fails is passed over
        began = time.monotonic()
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: ended)  # the block does not end
        assert 0.15 < time.monotonic() - began < 2.2
    assert (ended, said) == ([0], ["rows", "record"])
    assert "ended where it is" in capsys.readouterr().err


def test_what_asks_late_is_told_at_once(tmp_path):
    called = []
    with StopNotice(tmp_path) as stop:
        stop.ask("a test")
        with stop.noticed(lambda: called.append(1)):
            assert called == [1]


def test_a_second_ctrl_c_ends_at_once_and_one_does_not(tmp_path, capsys):
    ended = []
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with StopNotice(tmp_path, end=ended.append):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            assert ended == []
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(lambda: ended)
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == [130]
    assert "ended at once; the same command resumes" in capsys.readouterr().err


def test_in_another_thread_the_file_alone_counts(tmp_path):
    seen = []

    def elsewhere():
        with StopNotice(tmp_path) as stop:
            (tmp_path / "stop").touch()
            wait_for(lambda: stop.is_asked)
            seen.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [True]


def test_without_a_work_directory_no_notice_comes():
    with NEVER as stop:
        stop.check()
    assert not stop.is_asked


@pytest.fixture
def other_host(monkeypatch):
    """Makes this process the first of two; what the other one is asked for is in the dictionary."""
    other = {"is_asked": False}
    monkeypatch.setattr(hosts, "is_single", lambda: False)
    monkeypatch.setattr(hosts, "exchange", lambda own: [own, other["is_asked"]])
    monkeypatch.setattr(hosts, "hears_stop", lambda call: contextlib.nullcontext())
    monkeypatch.setattr(hosts, "tell_stop", lambda left_s: other.update(told=left_s))
    return other


def test_between_two_steps_hosts_stop_once_all_know(tmp_path, other_host):
    with StopNotice(tmp_path) as stop:
        assert not stop.is_agreed()
        stop.ask("a test")
        assert 24 < other_host["told"] <= 25
        stop.check_step()  # the other one may be a step behind
        assert stop.is_agreed()
        with pytest.raises(Stopped):
            stop.check_step()
    with StopNotice(tmp_path) as stop:
        other_host["is_asked"] = True
        assert stop.is_agreed()
        assert stop.is_asked
        with pytest.raises(Stopped):
            stop.check_step()


def test_a_host_that_waits_for_one_that_has_ended_is_ended_soon(tmp_path, other_host, monkeypatch):
    monkeypatch.setattr(stopping, "_ALONE_S", 0.1)
    monkeypatch.setattr(hosts, "is_left_alone", lambda: "told" in other_host)
    ended = []
    with StopNotice(tmp_path, end=ended.append) as stop:
        began = time.monotonic()
        stop.ask("a test")
        wait_for(lambda: ended)
        assert 0.1 <= time.monotonic() - began < 9
    assert ended == [0]


def stopped_by_sigterm():
    with ends_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)


def test_a_pool_of_jobs_ends_on_sigterm_with_status_0(capsys):
    with pytest.raises(Stopped) as stopped:
        stopped_by_sigterm()
    assert stopped.value.code == 0
    assert "SIGTERM: stopped" in capsys.readouterr().err


def test_the_status_of_a_stop_is_a_setting_of_the_environment(monkeypatch):
    for text, status in (("143", 143), ("0", 0), ("", 0), ("no", 0), ("999", 0)):
        monkeypatch.setenv("JAXTOOL_STOP_STATUS", text)
        assert Stopped().code == status
