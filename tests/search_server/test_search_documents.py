"""What docs/search.md and the deployment files show: commands and flags are the server's, the example runs."""

import pathlib
import re
import shlex

import pytest
from helpers.search_serving import ROWS, serving, write_rows

from search_server import __main__ as command_line
from search_server import build

_ROOT = pathlib.Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "search.md").read_text("utf-8")
_DEPLOY = _ROOT / "search_server" / "deploy"
_BUILD_FLAGS = {"--corpus", "--index", "--rebuild", "--encoder", "--query-prefix", "--passage-prefix",
                "--qdrant", "--collection", "--qdrant-key-file"}  # fmt: skip
# The benchmarks' and the quickstart's.
_FLAGS_OF_OTHERS = {"--json", "--growth", "--documents", "--questions", "--tool"}


def _commands() -> list[str]:
    """Arguments of each server that the page or a deployment file starts."""
    service = (_DEPLOY / "search-server.service").read_text("utf-8")
    commands = re.findall(r"python -m search_server\b(?!\.)([^`#\n]*)", f"{_PAGE}\n{service}")
    kubernetes = (_DEPLOY / "kubernetes.yaml").read_text("utf-8")
    commands.append(" ".join(re.findall(r"^ +- (--.+)$", kubernetes, re.MULTILINE)))
    [docker] = re.findall(
        r"^CMD \[(.+)\]$", (_DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE
    )
    return [*commands, " ".join(shlex.split(docker.replace(",", " ")))]


@pytest.mark.parametrize("arguments", _commands())
def test_commands_of_documents_parse(arguments):
    if "--help" not in arguments:
        command_line.config_of(command_line._parser().parse_args(shlex.split(arguments)))


def test_there_is_a_command_of_each_kind():
    commands = " ".join(_commands())
    for words in ("--corpus wiki.jsonl", "--index /srv", "--concurrency=4", "--qdrant http"):
        assert words in commands


def test_flags_named_in_the_page_exist():
    """Those of the trainer's commands are held by tests of all pages."""
    server = re.sub(r"^## Training.*?(?=^## |\Z)", "", _PAGE, flags=re.DOTALL | re.MULTILINE)
    assert server != _PAGE
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", server))
    known = set(command_line._parser()._option_string_actions)
    assert shown <= known | _FLAGS_OF_OTHERS
    assert known >= _BUILD_FLAGS


def test_the_figures_of_the_code_are_those_of_the_page():
    config = command_line.config_of(command_line._parser().parse_args([]))
    for figure in (config.max_queries, config.max_query_chars, config.max_topk, config.max_answer_passages,
                   config.queue_queries, config.max_connections, build.ROWS_A_COMMIT):  # fmt: skip
        assert f"{figure:,}" in _PAGE


def test_the_example_of_the_page_runs(tmp_path, capsys):
    [example] = re.findall(r"```python\n(.+?)```", _PAGE, re.DOTALL)
    assert "127.0.0.1:8000" in example
    corpus = write_rows(tmp_path / "wiki.jsonl", ROWS)
    with serving("--corpus", str(corpus)) as server:
        exec(example.replace("127.0.0.1:8000", server.address), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith('"Kiss and Tell"')
