"""docs/plans: every plan fits, belongs to a run file, and table and header say what it says."""

import importlib.util
import json

import pytest

from docs import plan_table
from jaxtool.config import loader
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.plan.plan import plan_run
from jaxtool.plan.report import as_json, headline, table_row
from jaxtool.plan.step import default_assumptions
from jaxtool.train.rl_config import RlConfig

PLANS = sorted((REPOSITORY_ROOT / "docs" / "plans").glob("*.json"))
WANTED = {
    "otc_grpo_7b_v5e_64",
    "otc_grpo_7b_v6e_16",
    "otc_grpo_llama3_1_8b_v6e_16",
    "otc_grpo_qwen3_8b_v6e_16",
    "otc_grpo_search",
    "otc_ppo_7b_v5e_64",
    "otc_ppo_search",
    "retool_32b_v5p_128",
    "retool_32b_v6e_64",
    "retool_cold_start_32b",
    "retool_ppo_32b_v5p_128",
    "retool_r1_distill_32b_v5p_128",
    "search_r1_grpo",
    "search_r1_ppo",
    "stateful_qwen3_4b_v6e_64",
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
    for row in record["programs"]:
        parts = ("arguments_gib", "temporaries_gib", "outputs_gib", "other_resident_gib")
        assert row["hbm_gib"] == pytest.approx(sum(row[part] for part in parts), abs=0.003)
    run_file = REPOSITORY_ROOT / record["gin_file"]
    assert run_file.stem == path.stem
    assert f"# plan: {headline(record)}" in run_file.read_text()
    assert table_row(record) in (REPOSITORY_ROOT / "docs" / "plans.md").read_text()
    if not plan_table.is_of_this_method(record):
        return  # of the settings of then: header and page say so
    # The shapes that were planned are those that the file asks for today.
    config = loader.load(loader.target_of(run_file), files=[run_file])
    shapes = {row["name"]: row["shape"] for row in record["programs"]}
    blocks = config.grpo if isinstance(config, RlConfig) else config.sft
    assert (
        shapes["gradient block"]
        == f"{blocks.micro_batch_rows} rows x {config.pack.row_tokens} tokens"
    )
    if isinstance(config, RlConfig):
        assert shapes["decode window"].startswith(f"{config.engine.decode_rows} rows")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'libtpu>=0.0.50' flatbuffers in Python 3.12",
)
def test_a_checked_in_plan_is_what_the_compiler_says_today():
    """ToRL 1.5B on v5e-8, all programs; other compilers may differ by a little."""
    [path] = [path for path in PLANS if path.stem == "torl_1_5b_v5e_8"]
    record = json.loads(path.read_text())
    if not plan_table.is_of_this_method(record):
        pytest.skip(f"{path.name} is of the method before (docs/plans.md): make it again")
    config = loader.load(RlConfig, files=[REPOSITORY_ROOT / record["gin_file"]])
    plan = plan_run(config, record["topology"], default_assumptions(config))
    today = as_json(plan, record["gin_file"])
    assert today["fits"]
    assert today["hbm_used_gib"] == pytest.approx(record["hbm_used_gib"], rel=0.1)
    assert today["predicted_step_s"] == pytest.approx(record["predicted_step_s"], rel=0.1)
    assert today["resident_gib"] == record["resident_gib"]
    assert [row["name"] for row in today["programs"]] == [row["name"] for row in record["programs"]]
