"""The committed table of rewards is the one that the code makes."""

import json
import sys
from pathlib import Path

import pytest

from docs import rewards_table as table
from jaxtool.config import loader
from jaxtool.train.rl_config import reward_of

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_table_is_the_generated_one():
    text = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
    committed = text.split("<!-- table -->\n")[1].split("\n<!-- end of table -->")[0]
    assert committed == table.markdown(table.variants())


def test_every_file_that_the_table_names_exists():
    files = [file for row in table.variants() for file in row.gin.split() if ".gin" in file]
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


def test_rows_of_hard_problems_and_of_a_tools_price_by_hand():
    """With a call at ½ and n = 0, m calls are worth cos(mπ / 2(m + 3)); a hard problem is never asked to save."""
    rows = {row.name: row.rewards(is_correct=True) for row in table.variants()}
    per_tool = rows["OTC-GRPO, a call of the sandbox 0.5"]
    assert [per_tool[m] for m in (0, 1, 3, 6)] == pytest.approx([1, 0.9238795, 0.7071068, 0.5])
    # The sandbox's at ½ and the other tool's at 1: m = 0, ½, 1½, 2, 3, 3½, 4½ in cos(mπ / (2m + 3)).
    mixed = rows["OTC-GRPO, the same, every second call another tool's"]
    assert [mixed[m] for m in (0, 1, 2, 4)] == pytest.approx([1, 0.9238795, 0.7071068, 0.5])
    easy = rows["OTC-GRPO, easy problems only: an easy problem"]
    assert easy[:4] == pytest.approx([1, 1, 0.8660254, 0.7071068])
    assert rows["AdaTIR, easy problem"][:4] == pytest.approx([1, 0.75, 0.5669873, 0.5])
    for name in ("OTC-GRPO, easy problems only: a hard problem", "AdaTIR, hard problem"):
        assert set(rows[name]) == {1.0}


ROWS = [row for row in table.variants() if row.gin.endswith(".gin")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_have_the_price_and_the_reward_of_their_files(row):
    """In a run of the table's budgets, where the files say nothing of their own."""
    configs = ROOT / "gin_configs"
    run = configs / "runs" / "quickstart_grpo.gin"
    files = [run, *(configs / "algos" / name for name in row.gin.split())]
    params = [
        f"RolloutConfig.max_response_tokens = {table.BUDGET.max_response_tokens}",
        f"RolloutConfig.max_tool_calls = {table.BUDGET.max_tool_calls}",
    ]
    config = loader.load(loader.target_of(run), files=files, params=params)
    assert (row.reward, row.call_cost) == (reward_of(config), config.call_cost)


def test_the_tables_trajectories_are_sound():
    for calls in range(3):
        trajectory = table.trajectory_with(calls)
        trajectory.check()
        assert trajectory.num_tool_calls == calls
