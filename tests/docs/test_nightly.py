"""The nightly command: what it runs, what it leaves out and why, and that a failure is seen."""

import dataclasses
import json
import sys

import pytest

from docs import nightly
from docs.commands import commands

TEXT = """
```
python -m docs.rewards_table
python -m docs.rewards_table  # again
python -m docs.rewards_table --wrong
python -m experiments.train --distributed --gin_file RUN.gin --workdir runs/mine
python -m experiments.train --gin_file gin_configs/runs/smollm2_products.gin --workdir runs/real
python -m experiments.unknown
```
`python -m experiments.evaluate` and `python -m benchmarks.cache_use`.
"""


def test_commands_are_made_small_once_each(monkeypatch):
    rules = [dataclasses.replace(rule, needs=rule.needs and "not_there") for rule in nightly.RULES]
    monkeypatch.setattr(nightly, "RULES", tuple(rules))
    table, wrong, several, real, unknown, inline = nightly.jobs_of(commands(TEXT, "x.md"))
    assert (table.arguments, table.why_not) == ((), "")
    assert wrong.arguments == ("--wrong",)
    assert several.why_not == "tests/parallel/test_two_processes.py runs it"
    assert real.why_not == "not_there is not installed"
    assert "STEPS = 1" in real.arguments
    assert unknown.why_not == "no rule says how to run it small"
    assert str(inline) == "x.md: python -m benchmarks.cache_use"


def test_a_failure_is_shown_and_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.md").write_text(TEXT)
    monkeypatch.setattr(nightly, "documents", lambda: [tmp_path / "x.md"])
    monkeypatch.setattr(nightly, "name_of", lambda file: file.name)
    flags = ["--only", "docs.rewards_table", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["nightly", *flags, "--workdir", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        nightly.main()
    assert end.value.code == 1
    good, bad = json.loads((tmp_path / "out.json").read_text())["commands"]
    assert (good["status"], good["why"], good["document"]) == ("ok", "", "x.md")
    assert (bad["status"], bad["why"]) == ("failed", "exit status 2")
    assert "unrecognized arguments: --wrong" in capsys.readouterr().out
