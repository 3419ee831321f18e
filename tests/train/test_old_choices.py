"""The table of old strings: what it names as old is gone, and what it names as new is there."""

import dataclasses
import importlib
import re

import pytest

from jaxtool.config import loader
from jaxtool.learn.advantage_choices import ClippedShaping
from jaxtool.learn.aggregation_choices import SequenceConstantMean
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import AdamW, AdamW8bit, Cosine, Muon, OptimizerConfig
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward
from jaxtool.train import run_files
from jaxtool.train.old_choices import OLD_CHOICES

CLASSES = {
    c.__name__: c
    for c in (
        *(AdamW, AdamW8bit, ClippedShaping, Cosine, GrpoConfig, Muon, OptimizerConfig),
        *(OtcGrpoReward, OtcPpoReward, SequenceConstantMean),
    )
}


def has_field(name: str) -> bool:
    owner, _, field = name.partition(".")
    return field in {f.name for f in dataclasses.fields(CLASSES[owner])}


@pytest.mark.parametrize("old", OLD_CHOICES)
def test_the_old_one_is_refused_and_the_new_one_exists(old):
    field, _, value = old.partition(" = ")
    assert has_field(field) == bool(value)
    new = OLD_CHOICES[old]
    references = re.findall(r"@([\w.]+)\.(\w+)", new)
    for module, name in references:
        assert callable(getattr(importlib.import_module(module), name))
    fields = re.findall(r"(?<![\w.@])([A-Z]\w+\.\w+)", new)
    assert fields
    assert all(has_field(name) for name in fields)


@pytest.mark.parametrize("old", [o for o in OLD_CHOICES if o.startswith(("Grpo", "Optimizer"))])
def test_an_old_line_is_refused_with_the_new_one(old):
    run = "gin_configs/runs/quickstart_grpo.gin"
    line = old if " = " in old else f"{old} = 1"
    with pytest.raises(loader.ConfigError, match=re.escape(OLD_CHOICES[old])) as error:
        run_files.load_run([run], [line])
    assert "\n" not in str(error.value)
