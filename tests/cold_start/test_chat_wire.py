"""Bytes of the protocol: replies that are none, usages that lie, times to wait."""

import json

import pytest

from jaxtool.cold_start import chat_wire
from jaxtool.cold_start.chat_wire import Reply, UnreadableReply, read_reply, retry_after_s
from jaxtool.cold_start.spending import Tokens


def body_of(message, usage=None, reason="stop"):
    choice = {"message": message, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": usage}).encode()


def test_a_reply_is_read():
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    assert read_reply(body_of({"content": "hi"}, usage)) == Reply(
        text="hi", finish_reason="stop", used=Tokens(prompt=7, written=3)
    )
    assert read_reply(body_of({"content": None}, None, None)) == Reply(
        text="", finish_reason="", used=None
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [3]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_reply_is_said_in_one_line(content):
    with pytest.raises(UnreadableReply) as error:
        read_reply(content)
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        3,
        {},
        {"prompt_tokens": 7},
        {"prompt_tokens": "7", "completion_tokens": 3},
        {"prompt_tokens": -7, "completion_tokens": 3},
        {"prompt_tokens": 7.0, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": 7, "completion_tokens": 10**30},
        {"prompt_tokens": 7, "completion_tokens": 0},
    ],
)
def test_a_usage_that_cannot_be_true_is_none(usage):
    assert read_reply(body_of({"content": "hi"}, usage)).used is None


def test_times_to_wait():
    assert retry_after_s("7", 0) == 7
    assert retry_after_s("1.5", 0) == 1.5
    assert retry_after_s("Thu, 01 Jan 1970 00:01:00 GMT", 20) == 40
    assert retry_after_s("Thu, 01 Jan 1970 00:00:10 GMT", 20) == 0
    for nonsense in ("", "soon", "-3", "1.2.3", "²", "nan", "inf"):
        assert retry_after_s(nonsense, 0) == 0


def test_errors_in_one_line():
    assert chat_wire.error_text(b'{"error": {"message": "no\\nkey"}}') == "no key"
    assert chat_wire.error_text(b'{"error": "no"}') == "no"
    assert chat_wire.error_text(b'{"detail": 3}') == "{'detail': 3}"
    assert chat_wire.error_text(b"<h1>\x1b[31mred") == "<h1> [31mred"
    assert (
        chat_wire.error_code(b'{"error": {"code": "insufficient_quota"}}') == "insufficient_quota"
    )
    assert chat_wire.error_code(b"[]") == chat_wire.error_code(b"x") == ""
    assert len(chat_wire.one_line("x" * 10_000)) == 203
