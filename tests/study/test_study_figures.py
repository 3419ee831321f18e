"""A study's figures from answers that are there."""

import dataclasses
import json

import pytest
from helpers.studies import small_study

from jaxtool.report.page import write_report
from jaxtool.study import results, tables
from jaxtool.study.figures import EvalRecord
from jaxtool.study.variants import ARITHMETIC

LEVELS = ("two_digit", "hard")


# (accuracy on two digits, on hard ones; calls on two digits, on hard ones), ten questions a level.
PLAYED = {
    "pretrain": (9, 0, 0, 0),
    "cold_start_half": (9, 2, 1, 1),
    "cold_start": (9, 6, 1, 1),
    "retool_grpo": (10, 8, 1, 2),
    "otc_grpo": (9, 4, 0, 0),
    "otc_after_grpo": (9, 8, 0, 1),
    "text_rl": (10, 0, 0, 0),
    "torl": (1, 0, 0, 0),
}


@pytest.fixture
def played(tmp_path):
    """The files of a study of two seeds; seed 1 has one more hard question right with GRPO."""
    plan = small_study(tmp_path)
    for variant in plan.variants:
        for seed in plan.seeds:
            easy, hard, easy_calls, hard_calls = PLAYED[variant.name]
            extra = seed if variant.name == "retool_grpo" else 0
            rights = {"two_digit": easy, "hard": hard + extra}
            calls = {"two_digit": easy_calls, "hard": hard_calls}
            rows = [
                EvalRecord(
                    question=f"{level}/{i}",
                    level=level,
                    calls=calls[level],
                    is_correct=i < rights[level],
                    tokens=8,
                )
                for level in LEVELS
                for i in range(10)
            ]
            # What RL variants know themselves does not count: only what they start from does.
            knows = variant.name in ("pretrain", "cold_start_half", "cold_start")
            mental = [
                dataclasses.replace(a, calls=0, is_correct=knows and a.level == "two_digit")
                for a in rows
            ]
            parts = {"greedy": rows, "sampled": rows, "validation": rows, "mental": mental}
            output = plan.answers(variant.name, seed)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(
                json.dumps(
                    {"answers": {p: [dataclasses.asdict(a) for a in r] for p, r in parts.items()}}
                )
            )
            folder = plan.run_dir(variant.name, seed)
            folder.mkdir(parents=True)
            best = 0.5 if variant.name == "text_rl" else 0.9
            metrics = [
                {"step": 0, "time_s": 1.0, "tokens/policy_mean": 10.0},
                {"step": 1, "time_s": 2.0, "tokens/policy_mean": 20.0}
                | {"validation/accuracy_fraction": best, "validation/calls_per_answer": 1.0},
            ]
            (folder / "metrics.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in metrics)
            )
    return plan


def test_results_by_hand(played, tmp_path):
    found = results.results(played)
    otc = found["variants"]["otc_after_grpo"]
    assert otc["greedy"]["accuracy"] == {"mean": 0.85, "stderr": 0.0, "seeds": [0.85, 0.85]}
    assert otc["greedy"]["tool_calls"]["mean"] == 0.5
    assert otc["greedy"]["over_use"]["mean"] == otc["greedy"]["under_use"]["mean"] == 0.0
    assert otc["optimal_calls"] == [{"two_digit": 0, "hard": 1}] * 2
    grpo = found["variants"]["retool_grpo"]
    assert grpo["greedy"]["over_use"]["mean"] == 1.0  # one on each easy, one too many on each hard
    # 128 answers of 10 and of 20 tokens.
    assert grpo["training"]["tokens"]["mean"] == 128 * 30
    # Text-only RL's best is 0.5; GRPO starts from 0.75.
    assert grpo["training"]["steps_to_target"]["seeds"] == [0, 0]
    assert found["variants"]["text_rl"]["training"]["steps_to_target"]["seeds"] == [2, 2]
    tokens = found["variants"]["text_rl"]["training"]["tokens_to_target"]
    assert tokens["seeds"] == [128 * 30, 128 * 30]
    # ToRL starts from a policy that was asked in another renderer: its curve has no step 0.
    assert [point["step"] for point in found["curves"]["text_rl"]["calls"]] == [0, 2]
    assert found["variants"]["torl"]["training"]["steps_to_target"]["seeds"] == [2, 2]
    summary = found["summary"]
    assert summary["seeds"] == 2
    assert summary["otc_calls_cut"] == pytest.approx(1 - 0.5 / 1.5)
    assert summary["otc_accuracy_loss_points"] == pytest.approx((5 + 10) / 2)
    assert summary["otc_calls_over_optimum"] == 0.0
    assert summary["otc_paper_calls_cut"] == 1.0
    assert summary["otc_paper_accuracy_loss_points"] == pytest.approx((25 + 30) / 2)
    assert summary["rl_gain_over_cold_start_points"] == pytest.approx((15 + 20) / 2)
    assert summary["rl_gain_stderr"] == pytest.approx(2.5)
    assert summary["tool_over_text_points"] == pytest.approx((40 + 45) / 2)
    # Lines of 128 x 30 = 3840 tokens, and 7680 with GRPO's before it, end before the first budget.
    assert set(found["matched_tokens"]) == {
        *("retool_grpo", "otc_grpo", "otc_after_grpo", "text_rl", "torl")
    }
    assert found["matched_tokens"]["otc_grpo"][0]["accuracy"]["mean"] is None
    assert json.loads(json.dumps(found)) is not None
    text = tables.markdown(found)
    assert "| otc_after_grpo | 85.0 ± 0.0 | 0.50 ± 0.00 | 0.50 ± 0.00 | 1.70 ± 0.00 |" in text
    # Easy questions need no call; OTC-GRPO makes none on hard ones either.
    assert "| variant | hard | a call is lost |" in text
    assert "| otc_grpo | 0.00!, 0.00! | in 2 of 2 seeds |" in text
    assert "| otc_after_grpo | 1.00, 1.00 | kept |" in text
    page = write_report(tmp_path / "report.html", tables.study_report(found, "study"))
    assert "ReTool-GRPO against its cold start" in page.read_text()


def test_lost_answers_stand_in_every_table_and_are_left_out_of_pairs(played):
    before = results.results(played)
    path = played.answers("otc_after_grpo", 0)
    answers = json.loads(path.read_text())
    answers["answers"]["greedy"][19] |= {"is_lost": True, "calls": 9}  # of 20; it had made one call
    path.write_text(json.dumps(answers))
    row = {"step": 2, "time_s": 3.0, "validation/answers_count": 90, "validation/lost_count": 10}
    with (played.run_dir("otc_grpo", 0) / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    found = results.results(played)
    otc = found["variants"]["otc_after_grpo"]
    assert otc["rests_on"]["greedy"] == {"answers": 39, "lost": 1}
    assert otc["greedy"]["tool_calls"]["seeds"] == [pytest.approx(9 / 19), 0.5]
    pair = found["paired"]["otc_after_grpo against retool_grpo"]["greedy"]
    assert (pair["questions"]["seeds"], pair["questions_left_out"]["seeds"]) == ([19, 20], [1, 0])
    # GRPO made 30 calls for 20 questions, two of them for the one that is left out.
    assert pair["calls_cut"]["seeds"][0] == pytest.approx(1 - 9 / 28)
    same = "retool_grpo against cold_start"
    assert found["paired"][same] == before["paired"][same]
    notes = [(table.title, table.note) for table in tables.tables(found)]
    assert all("answer" in note for _, note in notes)
    assert sum("otc_after_grpo 1." in note for _, note in notes) == 3  # greedy, its levels, the map
    assert sum("otc_grpo 10 of 100 (validations without figures: 1)" in n for _, n in notes) == 2


def test_equal_tokens_by_hand(played):
    """Runs of 3840 tokens, validated at their end with 0.9 and one call; the cold start has 0.75 and one.

    OTC after GRPO begins at 3840 with GRPO's answers, 0.925 and 1.5 calls, and ends with 7680.
    """
    suite = dataclasses.replace(ARITHMETIC, token_budgets=(3839, 3840, 7679, 7680, 7681))
    found = results.results(dataclasses.replace(played, suite=suite))["matched_tokens"]

    def at(variant, part):
        return [point[part]["mean"] for point in found[variant]]

    assert at("otc_grpo", "accuracy") == [0.75, 0.9, None, None, None]
    assert at("otc_after_grpo", "accuracy") == [
        0.75,
        pytest.approx(0.925),
        pytest.approx(0.925),
        0.9,
        None,
    ]
    assert at("otc_after_grpo", "calls") == [1.0, 1.5, 1.5, 1.0, None]
    assert at("torl", "accuracy") == [None, 0.9, None, None, None]


def test_missing_variants_leave_the_summary_without_their_figures(played):
    fewer = dataclasses.replace(played, variants=ARITHMETIC.select(["cold_start"]))
    summary = results.results(fewer)["summary"]
    assert summary["otc_calls_cut"] is None
    assert summary["rl_gain_stderr"] is None


def name_tools(plan, name, seed, of):
    """Writes into a variant's answers which tools their calls went to: `of` gives them by level."""
    path = plan.answers(name, seed)
    found = json.loads(path.read_text())
    for rows in found["answers"].values():
        for row in rows:
            row["calls_by_tool"] = of[row["level"]]
    path.write_text(json.dumps(found))


def test_figures_of_two_tools_by_hand(played):
    """GRPO: a program for each easy question, program and search for each hard one; OTC: a search for each hard one.

    Seed 0 of GRPO has 18 of 20 right, seed 1 has 19; OTC has 17. GRPO: 20 programs, 10 searches; OTC: 10 searches.
    """
    none = {"python": 0, "search": 0}
    grpo = {"two_digit": none | {"python": 1}, "hard": {"python": 1, "search": 1}}
    otc = {"two_digit": none, "hard": none | {"search": 1}}
    for variant in played.variants:
        of = {"retool_grpo": grpo, "otc_after_grpo": otc}.get(
            variant.name, dict.fromkeys(LEVELS, none)
        )
        for seed in played.seeds:
            name_tools(played, variant.name, seed, of)
    found = results.results(played)
    grpo, otc = (
        found["variants"][name]["by_tool"]["greedy"] for name in ("retool_grpo", "otc_after_grpo")
    )
    assert grpo["python"]["tool_calls"]["mean"] == 1.0
    assert grpo["search"]["tool_calls"]["mean"] == 0.5
    assert grpo["search"]["with_call"]["mean"] == 0.5
    assert grpo["search"]["accuracy_with_call"]["seeds"] == [0.8, 0.9]
    assert grpo["python"]["tool_productivity"]["seeds"] == [18 / 20, 19 / 20]
    assert grpo["search"]["tool_productivity"]["seeds"] == [18 / 10, 19 / 10]
    assert otc["python"]["tool_productivity"]["mean"] is None
    assert otc["search"]["tool_productivity"]["seeds"] == [1.7, 1.7]
    level = found["variants"]["retool_grpo"]["levels"]["greedy"]["two_digit"]["by_tool"]
    assert level["python"]["tool_calls"]["mean"] == 1.0
    assert level["search"]["tool_calls"]["mean"] == 0.0
    pair = found["paired_by_tool"]["otc_after_grpo against retool_grpo"]["greedy"]
    assert pair["python"]["calls_cut"]["mean"] == 1.0
    assert pair["search"]["calls_cut"]["mean"] == 0.0
    assert pair["search"]["productivity_gain"]["seeds"] == pytest.approx([17 / 18 - 1, 17 / 19 - 1])
    text = tables.markdown(found)
    assert "| retool_grpo | search | 50.0 ± 0.0 | 85.0 ± 5.0 | 0.50 ± 0.00 | 1.85 ± 0.05 |" in text
    assert "| otc_after_grpo | python | 0.0 ± 0.0 | – | 0.00 ± 0.00 | – |" in text
    assert "### By level and tool, sampled: calls" in text
    assert "| otc_after_grpo | search | 1.00 ± 0.00 | 0.00 ± 0.00 |" in text


def test_one_tool_and_files_of_before_make_no_table_by_tool(played):
    assert "by tool" not in tables.markdown(results.results(played)).lower()
    for variant in played.variants:
        for seed in played.seeds:
            name_tools(played, variant.name, seed, {key: {"python": 1} for key in LEVELS})
    found = results.results(played)
    assert "by tool" not in tables.markdown(found).lower()
    by_tool = found["variants"]["retool_grpo"]["by_tool"]["greedy"]
    assert by_tool["python"]["tool_calls"]["mean"] == 1.0
