"""The committed table of rewards is the one that the code makes."""

import json
import sys
from pathlib import Path

import pytest

from jaxtool.rewards import table

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_table_is_the_generated_one():
    text = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    committed = text.split("<!-- table -->\n")[1].split("\n<!-- end of table -->")[0]
    assert committed == table.markdown(table.variants())


def test_every_file_that_the_table_names_exists():
    files = [row.gin for row in table.variants() if row.gin.endswith(".gin")]
    assert len(files) > 8
    for file in files:
        assert (ROOT / "gin_configs" / "algos" / file).is_file(), file


def test_the_command_prints_the_table_and_writes_the_numbers(tmp_path, monkeypatch, capsys):
    path = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["table", "--json", str(path)])
    table.main()
    assert capsys.readouterr().out.strip() == table.markdown(table.variants())
    rows = {(r["variant"], r["fewest_calls"]): r for r in json.loads(path.read_text())}
    # The papers' vectors at c = 3.
    ppo, grpo = rows["OTC-PPO, cosine", None], rows["OTC-GRPO", 1]
    assert ppo["correct"][:4] == pytest.approx([1, 0.8090170, 0.6234898, 0.5])
    assert grpo["correct"][1:4] == pytest.approx([1, 0.8660254, 0.7071068])
    assert set(grpo["wrong"]) == {0.0}


def test_the_tables_trajectories_are_sound():
    for calls in range(3):
        trajectory = table.trajectory_with(calls)
        trajectory.check()
        assert trajectory.num_tool_calls == calls
