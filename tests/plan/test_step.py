"""From compiled programs to a step: roofline, how often programs run, what fits and what to change."""

import dataclasses
import io
import json
import math

import pytest
from helpers.program_plans import HOST, RESIDENT, V5E, config_of, program, small_cold_start
from rich.console import Console

from jaxtool.plan import program as names
from jaxtool.plan import report
from jaxtool.plan.advice import advise
from jaxtool.plan.chips import GIB, parse_slice
from jaxtool.plan.compiled import collectives_s, roofline_s
from jaxtool.plan.facts import out_of_memory_bytes
from jaxtool.plan.hlo import Collective
from jaxtool.plan.kernels import KernelPlan, KernelSteps
from jaxtool.plan.lengths import slowest_host
from jaxtool.plan.schedule import HOP_S
from jaxtool.plan.step import (
    Assumptions,
    StepPlan,
    default_assumptions,
    runs_per_cold_start_step,
    runs_per_step,
)
from jaxtool.tools.search import Search


def test_roofline_is_the_slower_of_work_and_traffic():
    assert roofline_s(197e12, 0, V5E) == 1.0
    assert roofline_s(0, 819e9, V5E) == 1.0
    assert roofline_s(197e12, 3 * 819e9, V5E) == 3.0


def test_collectives_cost_bytes_and_hops():
    found = (Collective(kind="all-reduce", count=10, sent_bytes=50e9, hops=80),)
    assert collectives_s(found, V5E) == pytest.approx(0.5 + 80 * HOP_S)


def test_time_is_the_larger_estimate_and_what_is_waited_for():
    plan = program("p", 1, roofline_s=2.0, compiler_s=3.0, collectives_s=0.5)
    assert plan.time_s == 3.5
    assert dataclasses.replace(plan, compiler_s=None).time_s == 2.5
    # Of half a second of collectives a fifth is hidden.
    assert dataclasses.replace(plan, waits_s=0.4).time_s == 3.4
    # Products at what they reach of the peak may be the largest; kernels come on top.
    assert dataclasses.replace(plan, products_s=5.0).time_s == 5.5
    kernel = KernelPlan(name="k", calls=2, steps=KernelSteps(active=1), cycles=None, seconds=0.25)
    assert dataclasses.replace(plan, kernels=(kernel, kernel)).time_s == 4.0


def test_the_compilers_message_about_memory_is_read():
    message = (
        "RESOURCE_EXHAUSTED: ... Ran out of memory in memory space hbm. Used 23.05G of 15.75G hbm."
    )
    assert out_of_memory_bytes(message) == 23.05 * GIB
    assert out_of_memory_bytes("INTERNAL: something else") is None


def test_runs_per_step_by_hand(tmp_path):
    config = config_of(tmp_path)
    assumed = Assumptions(
        response_tokens=12,
        prompt_tokens=4,
        tool_calls=0.25,
        observation_tokens=20,
        packed_share=0.8,
    )
    runs = runs_per_step(config, assumed, 1)
    # Of 12 tokens 5 are appended: 16 x 7 over 8 cache rows are 14 steps, 12 more for the last row: 26 / 8 windows.
    assert runs[names.WINDOW] == 4
    assert runs[names.PREFILL] == 1  # 2 prompts, 2 a call
    assert runs[names.PLACE] == 8  # 16 rows, 2 a call
    # 20 tokens are 3 chunks of 8: 16 x 0.25 x 3 / 2 rows a call.
    assert runs[names.APPEND] == 6
    # 16 x 16 tokens are 8 rows, 10 at 80 %: 3 blocks.
    assert (runs[names.LEARN], runs[names.OLD], runs[names.APPLY]) == (3, 0, 1)
    grpo = dataclasses.replace(config.grpo, updates_per_batch=2)
    runs = runs_per_step(dataclasses.replace(config, grpo=grpo), assumed, 1)
    # The first update's two blocks need no old log-probs.
    assert (runs[names.LEARN], runs[names.OLD], runs[names.APPLY]) == (4, 2, 2)
    # A critic values the blocks of both updates once, and learns as the policy does.
    critic = [runs[name] for name in (names.VALUES, names.CRITIC, names.CRITIC_APPLY)]
    assert critic == [4, 4, 2]
    # A KL in the reward asks policy and reference for those 4 blocks as well.
    grpo = dataclasses.replace(grpo, reward_kl_coef=0.1)
    runs = runs_per_step(dataclasses.replace(config, grpo=grpo), assumed, 1)
    assert runs[names.OLD] == 2 + 2 * 4


def test_a_host_decodes_its_share_and_learns_everything(tmp_path):
    """Of 3 x 8 answers on 2 hosts each has 12, 4 to each of the 3 prompts; all 24 are learned."""
    config = config_of(tmp_path)
    schedule = dataclasses.replace(config.schedule, problems_per_step=3)
    config = dataclasses.replace(config, schedule=schedule)
    assumed = Assumptions(
        response_tokens=12,
        prompt_tokens=4,
        tool_calls=0.25,
        observation_tokens=20,
        packed_share=0.8,
    )
    equal = dataclasses.replace(assumed, length_spread=0.0)
    runs = runs_per_step(config, equal, 2)
    assert (runs[names.WINDOW], runs[names.PREFILL], runs[names.PLACE]) == (3, 2, 6)
    assert runs[names.LEARN] == 4  # 24 x 16 tokens are 12 rows, 15 at 80 %
    assert (runs[names.PUBLISH], runs[names.PUBLISH_ENDS]) == (1, 1)  # of one layer


def test_the_slowest_host_has_more_tokens_than_the_mean(tmp_path):
    """8 problems a host: 64 x 12 tokens over 8 cache rows are 96 steps and 12 of the last row, 108 / 8 windows."""
    config = config_of(tmp_path)
    schedule = dataclasses.replace(config.schedule, problems_per_step=32, pool=None)
    config = dataclasses.replace(config, schedule=schedule)
    assumed = Assumptions(response_tokens=12, prompt_tokens=4, tool_calls=0)
    equal = dataclasses.replace(assumed, length_spread=0.0)
    assert runs_per_step(config, equal, 4)[names.WINDOW] == 14
    spread = assumed.lengths(config)
    shape = {"hosts": 4, "problems": 8, "samples": 8, "quantile": 0.5}
    slowest = slowest_host(spread, **shape, by="samples")
    assert 1.03 < slowest < 1.1
    runs = runs_per_step(config, assumed, 4)
    assert runs[names.WINDOW] == math.ceil((96 * slowest + 12) / 8)
    assert runs[names.PREFILL] == 16  # each host has a sample of each of the 32 prompts, two a call
    # All samples of a problem on one host: longer problems stay together, and each prompt runs once.
    schedule = dataclasses.replace(schedule, share_by="problems")
    config = dataclasses.replace(config, schedule=schedule)
    whole = slowest_host(spread, **shape, by="problems")
    assert 1.1 < whole < 1.3
    runs = runs_per_step(config, assumed, 4)
    assert runs[names.WINDOW] == math.ceil((96 * whole + 12) / 8)
    assert runs[names.PREFILL] == 4


def test_all_rows_at_once_take_as_long_as_the_longest(tmp_path):
    """16 answers of up to 24 tokens in 16 cache rows: 24 steps, 3 windows of 8."""
    config = config_of(tmp_path)
    engine = dataclasses.replace(config.engine, decode_rows=16)
    config = dataclasses.replace(config, engine=engine)
    assumed = Assumptions(response_tokens=12, prompt_tokens=4, tool_calls=0)
    assert runs_per_step(config, assumed, 1)[names.WINDOW] == 3


def test_short_observations_ride_the_window(tmp_path):
    """16 x 12 tokens over 8 cache rows are 24 steps, and 12 more for the last row: 36 / 8 windows."""
    assumed = Assumptions(response_tokens=12, prompt_tokens=4, tool_calls=1, observation_tokens=8)
    runs = runs_per_step(config_of(tmp_path), assumed, 1)
    assert (runs[names.APPEND], runs[names.WINDOW]) == (0, 5)


def test_passages_are_as_long_as_they_may_be(tmp_path):
    search = Search(addresses=("127.0.0.1:8000",), max_observation_tokens=500)
    assert default_assumptions(config_of(tmp_path, tools=(search,))).observation_tokens == 500
    assert default_assumptions(config_of(tmp_path)).observation_tokens == 64


def test_default_assumptions_are_half_the_limits_and_flags_win(tmp_path):
    config = config_of(tmp_path)
    assumed = default_assumptions(config)
    assert (assumed.response_tokens, assumed.prompt_tokens, assumed.tool_calls) == (12, 8, 1)
    told = default_assumptions(config, response_tokens=99, prompt_tokens=3, tool_calls=0.5)
    assert (told.response_tokens, told.prompt_tokens, told.tool_calls) == (24, 3, 0.5)


def test_runs_of_a_cold_start_by_hand(tmp_path):
    config = small_cold_start(tmp_path)
    assumed = default_assumptions(config)
    assert (assumed.response_tokens, assumed.prompt_tokens, assumed.tool_calls) == (8, 8, 0)
    told = default_assumptions(config, response_tokens=20, prompt_tokens=12)
    # 8 x 32 tokens fill 8 rows: 2 blocks, one update. At 90 % they are 9.
    assert told.packed_share == 1.0
    assert runs_per_cold_start_step(config, told) == {names.LEARN: 2, names.APPLY: 1}
    fuller = dataclasses.replace(told, packed_share=0.9)
    assert runs_per_cold_start_step(config, fuller) == {names.LEARN: 3, names.APPLY: 1}


def plan_of(tmp_path, gib: float) -> StepPlan:
    config = config_of(tmp_path)
    compiled = [
        program(names.WINDOW, gib, roofline_s=2.0, collectives=(), compiler_s=1.0),
        program(names.LEARN, 3, other_resident=GIB, roofline_s=4.0, flops=2e12),
    ]
    tpu = parse_slice("v5e-8")
    return StepPlan(
        step="RL step",
        tpu=tpu,
        programs=tuple(compiled),
        resident=RESIDENT,
        runs={names.WINDOW: 3, names.LEARN: 2},
        trajectories=16,
        assumptions=default_assumptions(config),
        advice=advise(config, compiled, RESIDENT, tpu.chip.hbm_gib * GIB, HOST, 8),
    )


def test_the_way_to_the_host_and_back_takes_its_time(tmp_path):
    """5 GiB there and 5 GiB back at 10 GB/s."""
    plan = dataclasses.replace(plan_of(tmp_path, 15), resting=5 * GIB)
    assert plan.seconds["learner to the host and back"] == pytest.approx(2 * 5 * GIB / 10e9)
    assert plan.step_s == pytest.approx(14.015 + 2 * 5 * GIB / 10e9)


def test_a_plan_adds_up_and_its_record_has_the_promised_keys(tmp_path):
    plan = plan_of(tmp_path, 15)
    assert plan.fits
    assert plan.hbm_used == 15 * GIB
    assert plan.step_s == pytest.approx(3 * 2.0 + 2 * 4.0 + 3 * 0.005)
    report.write_json(tmp_path / "plans" / "p.json", plan, "runs/x.gin", "decoders/int8.gin")
    record = json.loads((tmp_path / "plans" / "p.json").read_text())
    assert (record["gin_file"], record["overlays"]) == ("runs/x.gin", ["decoders/int8.gin"])
    assert record["topology"] == "v5e:2x4"
    assert (record["fits"], record["hbm_used_gib"], record["hbm_limit_gib"]) == (True, 15.0, 15.75)
    assert record["predicted_step_s"] == 14.0
    # 16 answers of 12 tokens in 3 x 2.005 s, and with prompts of 8 in 14.015 s, on 8 chips.
    assert record["decode_tokens_per_s_per_chip"] == round(16 * 12 / 6.015 / 8, 1)
    assert record["step_tokens_per_s_per_chip"] == round(16 * 20 / 14.015 / 8, 1)
    assert [row["name"] for row in record["programs"]] == [names.WINDOW, names.LEARN]
    assert record["programs"][1]["hbm_gib"] == 4.0
    assert record["programs"][1]["tflop"] == 2.0


@pytest.mark.parametrize(("width", "is_whole"), [(80, False), (220, True)])
def test_a_table_is_readable_on_any_terminal(tmp_path, width, is_whole):
    plan = plan_of(tmp_path, 15)
    broken = dataclasses.replace(plan.programs[0], error="needs 16.0 GiB alone")
    file = io.StringIO()
    plan = dataclasses.replace(plan, programs=(broken, plan.programs[1]))
    report.print_plan(plan, Console(width=width, file=file))
    shown = file.getvalue()
    assert "…" not in shown
    for text in (names.WINDOW, names.LEARN, "HBM GiB", "16.0"):
        assert text in shown
    assert ("temporaries" in shown) == is_whole


def test_a_plan_that_does_not_fit_says_so_everywhere(tmp_path, capsys):
    plan = plan_of(tmp_path, 16)
    assert not plan.fits
    report.print_plan(plan)
    shown = capsys.readouterr().out
    assert "DOES NOT FIT: 16.0 GiB of 15.8 GiB" in shown
    assert "to make it fit: EngineConfig.decode_rows" in shown or "MeshConfig.tensor" in shown
    page = report.write_html(tmp_path / "p.html", plan, "runs/x.gin", "").read_text()
    assert "DOES NOT FIT" in page
    assert names.WINDOW in page
    broken = dataclasses.replace(plan.programs[0], error="needs 16.0 GiB alone")
    failed = dataclasses.replace(plan, programs=(broken, plan.programs[1]))
    assert failed.step_s is None
    assert report.as_json(failed, "x.gin")["predicted_step_s"] is None
