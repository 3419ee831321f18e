"""The doctor's lines, exit status and record."""

import json

import pytest

from jaxtool.cli import doctor
from jaxtool.cluster import doctor as all_checks
from jaxtool.cluster.findings import Check, Finding

OK = Finding(name="one", status="ok", text="fine")
WARN = Finding(name="two", status="warn", text="weak", remedy="mend it")


def start(monkeypatch, tmp_path, *looks, flags=()):
    checks = [Check(name="check", look=look, remedy="look again") for look in looks]
    asked = []
    monkeypatch.setattr(all_checks, "checks_of", lambda **what: asked.append(what) or checks)
    record = tmp_path / "doctor.json"
    monkeypatch.setattr("sys.argv", ["doctor", "--json", str(record), *flags])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    return ended.value.code, json.loads(record.read_text()), asked[0]


def test_a_host_that_can_run_ends_with_0_warnings_included(monkeypatch, tmp_path, capsys):
    code, record, asked = start(monkeypatch, tmp_path, lambda: OK, lambda: WARN)
    assert (code, record["is_ok"], record["warned"]) == (0, True, ["two"])
    assert capsys.readouterr().out.splitlines() == [
        "ok   one         fine",
        "warn two         weak -> mend it",
    ]
    assert (asked["peers"], asked["bucket"], asked["needs_gib"]) == ((), None, 20.0)


def test_a_host_that_cannot_ends_with_1_after_all_checks(monkeypatch, tmp_path, capsys):
    def broken():
        raise ConnectionError("gone")

    flags = ("--coordinator", "10.0.0.1:9000", "--peer", "10.0.0.2:22", "--bucket", "gs://b/runs")
    code, record, asked = start(monkeypatch, tmp_path, broken, lambda: OK, flags=flags)
    assert (code, record["failed"]) == (1, ["check"])
    assert "fail check       ConnectionError: gone -> look again" in capsys.readouterr().out
    assert asked["peers"] == ("10.0.0.1:9000", "10.0.0.2:22")
    assert asked["bucket"] == "gs://b/runs"


def test_room_must_be_a_positive_number(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["doctor", "--needs_gib", "nan"])
    with pytest.raises(SystemExit):
        doctor.parse()
    assert "--needs_gib nan must be above 0" in capsys.readouterr().err
