"""What the sandbox's documents and deployment files show: commands parse, the example runs."""

import contextlib
import io
import pathlib
import re
import shlex

import pytest

from sandbox_server import __main__ as command_line

_ROOT = pathlib.Path(__file__).parents[2]
_README = _ROOT / "sandbox_server" / "README.md"
_DEPLOY = _ROOT / "sandbox_server" / "deploy"
_PAGES = (_README, _ROOT / "docs" / "sandbox.md")
_FLAGS_OF_OTHERS = {"--sandbox", "--rm"}  # the trainer's, docker's


def _commands() -> list[str]:
    """Arguments of each `python -m sandbox_server`, and of what starts one in the deploy folder."""
    texts = [page.read_text("utf-8") for page in (*_PAGES, _DEPLOY / "sandbox-server.service")]
    commands = re.findall(r"python -m sandbox_server\b(?!\.)([^`#\n]*)", "\n".join(texts))
    commands.append(" ".join(re.findall(r"^ +- (--.+)$", _kubernetes(), re.MULTILINE)))
    docker = (_DEPLOY / "Dockerfile").read_text("utf-8")
    return [*commands, *(" ".join(shlex.split(c.replace(",", " "))) for c in _cmd(docker))]


def _kubernetes() -> str:
    return (_DEPLOY / "kubernetes.yaml").read_text("utf-8")


def _cmd(docker: str) -> list[str]:
    return re.findall(r"^CMD \[(.+)\]$", docker, re.MULTILINE)


def test_there_is_a_command_of_each_kind():
    commands = " ".join(_commands())
    for word in ("--selftest", "--concurrency 32", "--concurrency=4", "127.0.0.1:9464", "socket"):
        assert word in commands


@pytest.mark.parametrize("arguments", _commands())
def test_commands_of_documents_parse(arguments):
    if "--help" in arguments:
        with pytest.raises(SystemExit) as caught, contextlib.redirect_stdout(io.StringIO()):
            command_line._parser().parse_args(shlex.split(arguments))
        assert caught.value.code == 0
        return
    command_line.config_of(command_line._parser().parse_args(shlex.split(arguments)))


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_flags_named_in_documents_exist(page):
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text("utf-8")))
    assert shown
    known = set(command_line._parser()._option_string_actions) - set(command_line._RENAMED)
    assert shown <= known | _FLAGS_OF_OTHERS


def test_the_ten_lines_of_the_readme_run(server, capsys):
    [example] = re.findall(r"```python\n(.+?)```", _README.read_text("utf-8"), re.DOTALL)
    assert "127.0.0.1:50051" in example
    exec(example.replace("127.0.0.1:50051", server.address), {})
    assert capsys.readouterr().out == "STATUS_OK [2, 3]\n"
