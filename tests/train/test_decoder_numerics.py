"""A decoder that computes otherwise than the learner: measured, corrected by default, said in the log."""

import dataclasses
import json

import pytest
from helpers.small_runs import MODEL, CountingTool, rl_config, train

from jaxtool.decode.publish import DecoderNumerics
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.off_policy_choices import TokenMask, TokenTruncation
from jaxtool.parallel.axis_rules import single_device
from jaxtool.train.numerics import learner_setup, numerics_lines

HALF = DecoderNumerics(dtype="bfloat16")


def with_numerics(config, numerics):
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, numerics=numerics))


def setup_and_lines(config):
    setup = learner_setup(config, MODEL, single_device())
    return setup, numerics_lines(config, MODEL, setup)


@pytest.mark.parametrize(
    "numerics", [HALF, DecoderNumerics(weights="int8"), DecoderNumerics(cache="int8")], ids=str
)
def test_truncated_importance_sampling_is_on_where_the_decoder_differs(tmp_path, numerics):
    setup, lines = setup_and_lines(with_numerics(rl_config(tmp_path), numerics))
    assert setup.grpo.off_policy == (TokenTruncation(),)
    assert lines[0] == "attention: xla in the learner, xla over 32 cache positions"
    assert lines[1].startswith("the decoder ")
    assert "TokenTruncation in the loss" in lines[1]


def test_it_is_off_where_both_compute_the_same(tmp_path):
    setup, lines = setup_and_lines(rl_config(tmp_path))
    assert setup.grpo.off_policy == ()
    assert len(lines) == 1


@pytest.mark.parametrize("asked", [(), (TokenMask(),)])
def test_what_the_configuration_says_wins(tmp_path, asked):
    config = with_numerics(rl_config(tmp_path, grpo=GrpoConfig(off_policy=asked)), HALF)
    setup, lines = setup_and_lines(config)
    assert setup.grpo.off_policy == asked
    words = "TokenMask in the loss" if asked else "no correction"
    assert words in lines[1]


def test_the_bypass_anchor_is_corrected_by_its_own_ratio(tmp_path):
    config = with_numerics(rl_config(tmp_path, grpo=GrpoConfig(old_policy="sampler")), HALF)
    assert setup_and_lines(config)[0].grpo.off_policy == ()


def test_a_run_reports_the_gap_and_the_weights(tmp_path, capsys):
    config = with_numerics(
        rl_config(tmp_path), DecoderNumerics(dtype="bfloat16", weights="int8", cache="int8")
    )
    schedule = dataclasses.replace(config.schedule, steps=1)
    config = dataclasses.replace(config, schedule=schedule)
    train(config, workdir=tmp_path / "run", seed=1, tool=CountingTool())
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert 1e-4 < row["mismatch/max_abs_logprob_nats"] < 0.2
    assert row["policy/correction_weight_mean"] == pytest.approx(1.0, abs=0.05)
    assert row["policy/correction_weight_mean"] != 1.0
    assert "decodes in bfloat16, learns in float32, has int8 weights, has int8 cache" in (
        capsys.readouterr().out
    )
