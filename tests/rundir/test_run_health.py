"""Health: a limit is a limit, a warning comes once, and recovery is said."""

import dataclasses

import pytest

from jaxtool.rundir.health import Health, HealthLimits, WatchConfig, readings

WELL = {
    "tools/calls_per_answer": 1.2,
    "tools/ok_fraction": 0.9,
    "tools/infrastructure_failed_fraction": 0.0,
    "mismatch/kl_k3_nats": 1e-4,
    "timing/late_programs_total": 3.0,
    "policy/clipped_fraction": 0.01,
    "reward/learnable_group_fraction": 0.4,
    "policy/grad_norm": 0.6,
}
UNWELL = {
    "calls_died_out": {"tools/calls_per_answer": 0.009},
    "failed_calls": {"tools/ok_fraction": 0.4},
    "lost_answers": {"tools/infrastructure_failed_fraction": 0.03},
    "mismatch": {"mismatch/kl_k3_nats": 0.02},
    "late_programs": {"timing/late_programs_total": 4.0},
    "clipping": {"policy/clipped_fraction": 0.31},
    "equal_groups": {"reward/learnable_group_fraction": 0.05},
    "gradient_spike": {"policy/grad_norm": 5.1},
}
LIMITS = HealthLimits(steps_in_a_row=2)


@pytest.mark.parametrize("kind", UNWELL)
def test_each_kind_is_beyond_its_limit_alone(kind):
    found = readings(WELL | UNWELL[kind], LIMITS, late_before=3.0, usual_gradient=0.5)
    assert [name for name, reading in found.items() if reading.is_beyond] == [kind]
    assert hasattr(LIMITS, found[kind].limit)
    assert set(found) == set(UNWELL)


def test_a_number_at_its_limit_is_well_and_a_missing_one_says_nothing():
    assert not readings({"policy/clipped_fraction": 0.3}, LIMITS)["clipping"].is_beyond
    assert not readings({"tools/calls_per_answer": 0.01}, LIMITS)["calls_died_out"].is_beyond
    assert readings({"reward/mean": 1.0}, LIMITS) == {}


def test_a_warning_comes_once_after_some_steps_and_again_only_after_recovery():
    health, said, counted = Health(LIMITS), [], []
    for step, calls in enumerate((0.0, 0.0, 0.0, 1.0, 0.0, 0.0)):
        metrics, lines = health.observe(step, {"tools/calls_per_answer": calls})
        said.append([line.partition(": ")[0] for line in lines])
        counted.append(metrics["health/beyond_count/calls_died_out"])
    assert said == [[], ["warning"], [], ["step 3"], [], ["warning"]]
    assert counted == [1, 1, 1, 0, 1, 1]
    assert health.warnings == {
        "calls_died_out": "calls died out: tools/calls_per_answer is 0, HealthLimits.min_calls_per_answer=0.01"
    }


def test_late_programs_warn_at_once_by_what_this_step_added():
    health = Health(LIMITS, late_before=2.0)
    totals = (2.0, 3.0, 3.0)
    lines = [
        line
        for step, total in enumerate(totals)
        for line in health.observe(step, {"timing/late_programs_total": total})[1]
    ]
    assert lines == [
        "warning: step 1: programs are compiled within a step: timing/late_programs_total has grown by 1, "
        "HealthLimits.max_late_programs=0",
        "step 2: well again: programs are compiled within a step: timing/late_programs_total has grown by 0, "
        "HealthLimits.max_late_programs=0",
    ]


def test_a_gradient_ten_times_its_median_is_said_at_once_and_a_slow_rise_is_not():
    """The median of 1, 2, ..., 8 is 4.5: 45 is at the limit, 46 is beyond it."""
    for last, is_said in ((45.0, False), (46.0, True), (float("nan"), False)):
        health = Health(LIMITS)
        norms = [*map(float, range(1, 9)), last]
        said = [
            line
            for step, norm in enumerate(norms)
            for line in health.observe(step, {"policy/grad_norm": norm})[1]
        ]
        assert (
            said
            == [
                "warning: step 8: the gradient is far larger than usual: policy/grad_norm is 10.2 times its median "
                "of the steps before, HealthLimits.max_gradient_ratio=10"
            ]
            * is_said
        )


def test_kinds_that_say_nothing_of_a_run_are_left_out():
    metrics, _ = Health(LIMITS, frozenset({"mismatch"})).observe(0, WELL)
    assert set(metrics) == {
        f"health/beyond_count/{kind}"
        for kind in UNWELL
        if kind not in ("mismatch", "gradient_spike")
    }


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(HealthLimits)])
def test_limits_out_of_range_are_refused_by_name(field):
    with pytest.raises(ValueError, match=f"HealthLimits.{field} must be"):
        HealthLimits(**{field: -1})


def test_a_negative_interval_is_refused_by_name():
    with pytest.raises(ValueError, match=r"WatchConfig\.line_every_s must be >= 0"):
        WatchConfig(line_every_s=-1)
