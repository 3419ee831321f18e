"""`train --steps`: the macro where there is one, the setting where there is none, a warm-up that fits."""

import pytest

from jaxtool.train.run_files import load_run, steps_params

PRETRAIN = "gin_configs/runs/quickstart_pretrain.gin"
COLD_START_32B = "gin_configs/runs/retool_cold_start_32b.gin"


def test_without_the_flag_nothing_is_bound():
    assert steps_params([PRETRAIN], ["A.b = 1"], None) == ["A.b = 1"]


def test_the_macro_moves_what_follows_it():
    params = steps_params([PRETRAIN], [], 400)
    assert params == ["STEPS = 400"]
    config = load_run([PRETRAIN], params)
    assert (config.steps, config.optimizer.decay.total_steps) == (400, 400)


def test_a_file_without_the_macro_gets_the_setting():
    params = steps_params([COLD_START_32B], [], 400)
    assert params == ["SftRunConfig.steps = 400"]
    assert load_run([COLD_START_32B], params).steps == 400


def test_a_warm_up_ends_before_the_last_step():
    params = steps_params([PRETRAIN], [], 3)
    assert params == ["STEPS = 3", "OptimizerConfig.warmup_steps = 2"]
    assert load_run([PRETRAIN], params).optimizer.warmup_steps == 2


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="--steps 0 must be >= 1"):
        steps_params([PRETRAIN], [], 0)
