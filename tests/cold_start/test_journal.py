"""The journal: what was written is read, what was torn is dropped, what was open counts at its worst."""

import json

import pytest

from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.journal import NAME, held_by_one, open_journal, recorded_in
from jaxtool.cold_start.spending import Tokens

SETTINGS = {"model": "m", "prompt": "p" * 100}
MOST = Tokens(prompt=50, written=100)
USED = Tokens(prompt=7, written=3)


def test_replies_and_costs_come_back(tmp_path):
    text = "half \ud800, a line\nand \u2028"
    with open_journal(tmp_path, SETTINGS) as (journal, recorded):
        assert not recorded.answers
        journal.sent("a#0", MOST)
        journal.unanswered("a#0", is_billed=True, why="cut")
        journal.sent("a#0", MOST)
        journal.answer("a#0", Reply(text=text, finish_reason="stop", used=USED))
        journal.sent("b#0", MOST)
        journal.unanswered("b#0", is_billed=False, why="429")
        journal.sent("b#0", MOST)
        journal.unanswered("b#0", is_billed=False, why="400")
        journal.refused("b#0", "too long")
        journal.sent("c#0", MOST)
        journal.answer("c#0", Reply(text="", finish_reason="stop", used=None))
    with open_journal(tmp_path, SETTINGS) as (_, recorded):
        assert recorded.answers["a#0"] == Reply(text=text, finish_reason="stop", used=USED)
        assert recorded.refused == {"b#0": "too long"}
        assert (recorded.spent, recorded.uncertain) == (USED, MOST + MOST)
        assert recorded.is_done("b#0")
        assert not recorded.is_done("d#0")


def test_requests_that_a_kill_left_open_count_at_their_worst(tmp_path):
    with open_journal(tmp_path, SETTINGS) as (journal, _):
        journal.sent("a#0", MOST)
    assert recorded_in(tmp_path, SETTINGS).uncertain == MOST
    with open_journal(tmp_path, SETTINGS) as (journal, _):
        journal.sent("a#0", MOST)
        journal.answer("a#0", Reply(text="x", finish_reason="stop", used=USED))
    recorded = recorded_in(tmp_path, SETTINGS)
    assert (recorded.spent, recorded.uncertain) == (USED, MOST)


@pytest.mark.parametrize("lost", [1, 20])
def test_a_torn_last_line_is_dropped_and_written_over(tmp_path, lost):
    with open_journal(tmp_path, SETTINGS) as (journal, _):
        for row in ("a#0", "b#0"):
            journal.answer(row, Reply(text="x", finish_reason="stop", used=USED))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-lost])
    assert list(recorded_in(tmp_path, SETTINGS).answers) == ["a#0"]
    with open_journal(tmp_path, SETTINGS) as (journal, _):
        journal.answer("c#0", Reply(text="x", finish_reason="stop", used=USED))
    assert list(recorded_in(tmp_path, SETTINGS).answers) == ["a#0", "c#0"]


def test_a_kill_in_the_first_line_leaves_a_new_journal(tmp_path):
    (tmp_path / NAME).write_text('{"kind": "sett')
    with open_journal(tmp_path, SETTINGS):
        pass
    assert json.loads((tmp_path / NAME).read_text())["settings"] == SETTINGS


def test_a_start_that_asked_nothing_owns_no_directory(tmp_path):
    for settings in (SETTINGS, {"model": "n"}):
        with open_journal(tmp_path, settings):
            pass
        [line] = (tmp_path / NAME).read_text().splitlines()
        assert json.loads(line)["settings"] == settings


def test_other_settings_are_refused_with_what_differs(tmp_path):
    with open_journal(tmp_path, SETTINGS) as (journal, _):
        journal.refused("a#0", "too long")
    other = {"model": "n", "prompt": "q" * 100}
    with pytest.raises(
        ValueError, match='begun with other settings: model was "m" and is "n"; prompt was'
    ) as error:
        recorded_in(tmp_path, other)
    assert "(102 characters)" in str(error.value)
    with pytest.raises(ValueError, match="another --workdir"), open_journal(tmp_path, other):
        pass


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}"], "no journal of this command"),
        (
            ['{"kind": "settings", "settings": {}, "version": 9}', "{}"],
            "a journal of version 9, and 1 is read",
        ),
        (['{"kind": "settings", "settings": {}, "version": 1}', "x", "{}"], ":2: no JSON"),
        (['{"kind": "settings", "settings": {}, "version": 1}', "[]"], ":2: no line of a journal"),
        (
            [
                '{"kind": "settings", "settings": {}, "version": 1}',
                '{"kind": "answer", "row": "a"}',
            ],
            ":2: no line",
        ),
    ],
)
def test_a_damaged_journal_is_one_line(tmp_path, lines, message):
    (tmp_path / NAME).write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        recorded_in(tmp_path, {})


def test_one_process_at_a_time(tmp_path):
    with (
        open_journal(tmp_path, SETTINGS),
        pytest.raises(ValueError, match=r"is in use by process .*: wait for it, or name another"),
        held_by_one(tmp_path),
        open_journal(tmp_path, SETTINGS),
    ):
        pass


def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path, monkeypatch):
    class Full:
        name = "journal.jsonl"

        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[:5])

        def fileno(self):
            return self.file.fileno()

    with open_journal(tmp_path, SETTINGS) as (journal, _):
        journal.answer("a#0", Reply(text="x", finish_reason="stop", used=USED))
        monkeypatch.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(OSError, match="no room for another line"):
            journal.answer("b#0", Reply(text="x", finish_reason="stop", used=USED))
    assert list(recorded_in(tmp_path, SETTINGS).answers) == ["a#0"]
