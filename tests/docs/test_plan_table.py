"""The tables of plans.md and performance.md and the headers of run files are what docs/plans says."""

import pytest

from docs import plan_table
from docs.plan_table import (
    ANCHOR_TABLE,
    TABLE,
    anchor_rows,
    records,
    row_of,
    with_header,
    with_table,
)

RECORD = {
    "topology": "v6e:8x8",
    "devices": 64,
    "gin_file": "gin_configs/runs/retool_32b_v6e_64.gin",
    "fits": True,
    "hbm_used_gib": 29.5,
    "hbm_limit_gib": 31.24,
    "predicted_step_s": 1800.4,
    "decode_tokens_per_s_per_chip": 984.0,
    "step_tokens_per_s_per_chip": 600.2,
    "seconds": {
        "decode window": 1100.0,
        "gradient block": 500.0,
        "old log-probs": 150.0,
        "place": 1.0,
    },
    "assumptions": {"prompt_tokens": 256, "response_tokens": 8192.0},
}


def test_the_pages_have_the_tables_of_the_records():
    found = records()
    assert len(found) >= 16
    for page, head, rows in (
        ("plans.md", TABLE, [row_of(record) for record in found]),
        ("performance.md", ANCHOR_TABLE, anchor_rows(found)),
    ):
        text = (plan_table.PLANS.parent / page).read_text()
        assert with_table(text, head, rows) == text, "run python -m docs.plan_table"


def test_every_record_and_every_run_for_a_slice_has_its_topology():
    assert {path.stem for path in plan_table.PLANS.glob("*.json")} <= set(plan_table.TOPOLOGIES)
    planned = {
        path.stem
        for path in plan_table.RUN_FILES.glob("*.gin")
        if "# plan: " in path.read_text() or "# memory: " in path.read_text()
    }
    assert planned == set(plan_table.TOPOLOGIES)


def test_rows_by_hand():
    assert row_of(RECORD) == (
        "| `retool_32b_v6e_64.gin` | v6e:8x8 (64) | 29.5 of 31.24 | 1800 | 984 | 600 | "
        "decode window 1100, gradient block 500, old log-probs 150 | 3563 |"
    )
    first, *others = anchor_rows([RECORD])
    assert first == (
        "| a plan of ours | `retool_32b_v6e_64`: prompts of 256 tokens, answers of 8192 | v6e | 984 | 0.60 | 600 | "
        "[retool_32b_v6e_64.json](plans/retool_32b_v6e_64.json) |"
    )
    assert len(others) == len(plan_table.ANCHORS)
    assert any("| 4055 | 0.55 | - |" in row for row in others)
    old = {key: value for key, value in RECORD.items() if "per_chip" not in key}
    assert len(anchor_rows([old])) == len(others), "a record of the old method has no rates"


def test_a_table_is_replaced_and_nothing_else():
    text = "a\n\n| x | y |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |\n\nb\n"
    assert with_table(text, "| x | y |", ["| 5 | 6 |"]) == (
        "a\n\n| x | y |\n| --- | --- |\n| 5 | 6 |\n\nb\n"
    )
    with pytest.raises(ValueError, match="no table begins with"):
        with_table(text, "| z |", [])


@pytest.mark.parametrize("old", ["# plan: v6e:8x8 fits; 3 s", "# memory: not compiled"])
def test_a_header_takes_the_place_of_the_one_before(old):
    text = f"# A run.\n{old}\n# REQUIRED: MODEL_DIR\nX = 1  # plan: none\n"
    assert with_header(text, RECORD) == (
        "# A run.\n# plan: v6e:8x8 fits, 29.5 of 31.24 GiB a device; a step of about 1800 s\n"
        "# REQUIRED: MODEL_DIR\nX = 1  # plan: none\n"
    )


def test_a_header_says_that_a_record_is_of_the_method_before():
    old = {key: value for key, value in RECORD.items() if "per_chip" not in key}
    assert with_header("# plan: x\n", old) == (
        "# plan: v6e:8x8 fits, 29.5 of 31.24 GiB a device; a step of about 1800 s, by the method before and its "
        "settings (docs/plans.md)\n"
    )


def test_plans_are_made_by_the_command_for_their_slices(monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(plan_table.subprocess, "run", lambda command, **_: ran.append(command))
    plan_table.make(["torl_1_5b_v5e_8"], tmp_path)
    [command] = ran
    assert command[1:] == [
        *("-m", "experiments.plan", "--topology", "v5e-8"),
        *("--gin_file", "gin_configs/runs/torl_1_5b_v5e_8.gin"),
        *("--json", "docs/plans/torl_1_5b_v5e_8.json", "--keep", str(tmp_path)),
    ]
