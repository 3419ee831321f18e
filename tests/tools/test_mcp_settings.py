"""What an MCP entry of a run file may say, and what becomes of a server's list and answers. No server is started."""

import json

import pytest
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.mcp_endpoint import McpEndpoint, split_command
from jaxtool.tools.mcp_listing import broken_by, chosen, differences, offered
from jaxtool.tools.mcp_results import tool_result

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"Mcp\.command = '' and Mcp\.url = '': give one of them"),
        ({"command": "a b", "url": "http://h/mcp"}, r"Mcp\.command = 'a b' and Mcp\.url"),
        ({"command": "python 'my.py"}, r"""Mcp\.command = "python 'my.py": No closing quotation"""),
        ({"url": "host:8000/mcp"}, r"Mcp\.url = 'host:8000/mcp': write http://HOST:PORT/PATH"),
        ({"url": "ftp://host/mcp"}, "write http://HOST:PORT/PATH"),
        ({"url": "https://me:hunter2@host/mcp"}, r"Mcp\.url holds a user or a password: leave it out"),
        ({"url": "http://h/mcp", "cwd": "/tmp"}, r"Mcp\.env and Mcp\.cwd are for a command"),
        ({"url": "http://h/mcp", "headers": (("Authorization", "Bearer abc"),)}, r"'Authorization' must name an environment variable, as in \"Bearer \$\{TOKEN\}\""),
        ({"url": "http://h/mcp", "headers": (("a b", "${X}"),)}, "'a b' is no name of a header"),
        ({"command": "a", "headers": (("A", "${X}"),)}, r"Mcp\.headers are for a URL"),
        ({"command": "a", "env": (("A=B", "1"),)}, r"Mcp\.env: 'A=B' is no name of a variable"),
        ({"command": "a", "cwd": "/nowhere"}, r"Mcp\.cwd = '/nowhere': there is no such directory"),
        ({"command": "a", "shares": "step"}, r"shares='step' must be 'run' or 'trajectory'"),
        ({"command": "a", "deadline_s": 0}, "deadline_s"),
        ({"command": "a", "deadlines": (("x", -1.0),)}, r"Mcp\.deadlines: 'x' has -1\.0, which must be > 0"),
        ({"command": "a", "max_concurrency": 0}, "max_concurrency"),
        ({"command": "a", "max_observation_tokens": 0}, "max_observation_tokens"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        Mcp(**settings)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_command_line_names_a_url_or_a_command():
    assert Mcp.of("http://host:8000/mcp") == Mcp(url="http://host:8000/mcp")
    assert Mcp.of("python 'my server.py' --x").endpoint.command == ("python", "my server.py", "--x")
    assert split_command(("python", "a b")) == ("python", "a b")


def test_secrets_come_from_the_environment_and_stand_in_no_record(monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("TWO", "lines\nof it")
    headers = (("Authorization", "Bearer ${TOKEN}"),)
    endpoint = Mcp(url="http://host/mcp", headers=headers).endpoint
    assert endpoint.read_headers() == {"Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr(endpoint) + endpoint.title
    asked = McpEndpoint(url="http://host/mcp?key=${TOKEN}")
    assert asked.read_url() == "http://host/mcp?key=s3cret"
    assert "s3cret" not in repr(asked) + asked.title
    env = (("KEY", "${TOKEN}"), ("LEVEL", "info"))
    assert Mcp(command="a", env=env).endpoint.read_env() == {"KEY": "s3cret", "LEVEL": "info"}
    with pytest.raises(
        ValueError, match=r"Mcp\.headers: A needs the environment variable NONE: set it"
    ):
        Mcp(url="http://host/mcp", headers=(("A", "${NONE}"),)).endpoint.read_headers()
    with pytest.raises(ValueError, match=r"Mcp\.headers: A: the value holds a line end") as error:
        Mcp(url="http://host/mcp", headers=(("A", "${TWO}"),)).endpoint.read_headers()
    assert "of it" not in str(error.value)


@pytest.mark.parametrize("name", ["no-such-program", "./no-such-program", "./folder", "./plain"])
def test_a_command_that_is_not_there_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").touch()
    endpoint = McpEndpoint(command=(name, "--flag"), cwd=str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"MCP server '{name} --flag': command not found: '{name}'"
    ):
        endpoint.started_by({"PATH": "/usr/bin:/bin"})


def test_a_menu_has_the_servers_order_and_names_that_a_policy_can_write():
    listed = [offered(name, "d", SCHEMA) for name in ("fs.read", "add", "web/search")]
    assert list(chosen(listed, (), "", "S")) == ["fs_read", "add", "web_search"]
    menu = chosen(listed, ("add", "fs.read"), "disk_", "S")
    assert [(name, one.name) for name, one in menu.items()] == [
        ("disk_fs_read", "fs.read"),
        ("disk_add", "add"),
    ]


def test_the_prompt_has_the_servers_schema_without_its_dialect():
    properties = {"to": {"type": "string"}, "from": {"type": "string"}}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    one = offered("a", None, schema | {"properties": properties})
    assert one.description == ""
    assert json.dumps(one.parameters) == json.dumps({"type": "object", "properties": properties})
    assert offered("a", "", schema).parameters == {"type": "object", "properties": {}}


def test_what_a_run_can_and_cannot_live_with():
    one, other = offered("a", "old", SCHEMA), offered("b", "", SCHEMA)
    assert broken_by([one], [other, one]) == ""
    in_another_order = {"properties": SCHEMA["properties"], "type": "object"}
    assert broken_by([one], [offered("a", "old", in_another_order)]) == ""
    assert broken_by([one, other], [one]) == "the tool 'b' is gone"
    assert broken_by([one], [offered("a", "old", {"type": "object"})]) == (
        "the arguments of the tool 'a' have changed"
    )
    new_words = [offered("a", "new", SCHEMA)]
    assert broken_by([one], new_words) == ""
    assert differences([one], new_words) == ["the description of the tool 'a' has changed"]
    assert differences([one], [one, other]) == []


TEXT = TextContent(type="text", text="one\ntwo")
IMAGE = ImageContent(type="image", data="QUJD", mime_type="image/png")


@pytest.mark.parametrize(
    ("content", "more", "result"),
    [
        ([TEXT], {}, {"stdout": "one\ntwo"}),
        ([TEXT, TEXT], {"structured_content": {"a": 1}}, {"stdout": "one\ntwo\none\ntwo"}),
        ([], {"structured_content": {"é": [1, None]}}, {"stdout": '{"é": [1, null]}'}),
        ([IMAGE], {"structured_content": 7}, {"stdout": "7\n[image/png, 4 bytes of base64: not shown]"}),
        ([AudioContent(type="audio", data="QQ==", mime_type="audio/wav")], {}, {"stdout": "[audio/wav, 4 bytes of base64: not shown]"}),
        ([EmbeddedResource(type="resource", resource=TextResourceContents(uri="f:///a", text="in it"))], {}, {"stdout": "in it"}),
        ([EmbeddedResource(type="resource", resource=BlobResourceContents(uri="f:///a", blob="QUI="))], {}, {"stdout": "[f:///a, 4 bytes of base64: not shown]"}),
        ([ResourceLink(type="resource_link", uri="f:///b", name="b")], {}, {"stdout": "[f:///b: not shown]"}),
        ([], {}, {"stdout": ""}),
        ([TextContent(type="text", text="x" * 21)], {}, {"stdout": "x" * 20, "is_truncated": True}),
        ([TEXT], {"is_error": True}, {"status": ToolStatus.ERROR, "stderr": "one\ntwo", "error_type": "ToolError"}),
        ([], {"is_error": True}, {"status": ToolStatus.ERROR, "stderr": "ToolError", "error_type": "ToolError"}),
    ],
)  # fmt: skip
def test_what_a_policy_reads_of_an_answer(content, more, result):
    answer = CallToolResult(content=content, **more)
    max_chars = 20 if "x" * 21 in str(content) else 1000
    assert tool_result(answer, max_chars) == ToolResult(**{"status": ToolStatus.OK, **result})
