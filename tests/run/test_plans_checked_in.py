"""docs/plans: every plan fits, belongs to a run file, and table and header say what it says."""

import json

import pytest

from jaxtool.run import gin_config
from jaxtool.run.gin_config import REPOSITORY_ROOT
from jaxtool.run.plan.report import headline, table_row
from jaxtool.run.rl_loop import RlConfig

PLANS = sorted((REPOSITORY_ROOT / "docs" / "plans").glob("*.json"))
WANTED = {
    "otc_grpo_7b_v5e_64",
    "otc_grpo_7b_v6e_16",
    "retool_32b_v5p_128",
    "retool_32b_v6e_64",
    "torl_1_5b_v5e_8",
}


def test_the_promised_plans_are_there():
    assert {path.stem for path in PLANS} >= WANTED


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_fits_and_is_told_the_same_everywhere(path):
    record = json.loads(path.read_text())
    assert record["fits"]
    assert record["hbm_used_gib"] <= record["hbm_limit_gib"]
    assert record["predicted_step_s"] > 0
    assert all(row["error"] is None for row in record["programs"])
    run_file = REPOSITORY_ROOT / record["gin_file"]
    assert run_file.stem == path.stem
    assert f"# plan: {headline(record)}" in run_file.read_text()
    assert table_row(record) in (REPOSITORY_ROOT / "docs" / "plans.md").read_text()
    # The shapes that were planned are those that the file asks for today.
    config = gin_config.load(RlConfig, files=[run_file])
    shapes = {row["name"]: row["shape"] for row in record["programs"]}
    assert shapes["decode window"].startswith(f"{config.engine.slots} rows")
    assert shapes["gradient block"] == (
        f"{config.grpo.block_rows} rows x {config.pack.row_tokens} tokens"
    )
