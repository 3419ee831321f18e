"""No setting of a run takes NaN, an infinity or a number out of its range: refused when it is built.

All frozen dataclasses that a gin file names are tried, so a setting of tomorrow is too.
"""

import dataclasses
import importlib
import math
import pkgutil
import re
import typing
from pathlib import Path

import pytest

import jaxtool
from jaxtool.core.ranges import check_range
from jaxtool.learn.advantage_choices import LeaveOneOut
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import AdamW, Cosine, Muon, OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.model.config import ModelConfig, RopeScaling
from jaxtool.renderers.demonstrations import ArithmeticDemonstrations
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.outcome import OtcGrpoReward
from jaxtool.rewards.terms import ToolBonus
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.tools.sandbox_client import SandboxClientConfig
from jaxtool.train.contradictions import check_critic
from jaxtool.train.rl_config import Schedule

ROOT = Path(jaxtool.__file__).resolve().parent.parent
# What stands for "no bound", and what may be negative.
INFINITE = {
    ("PpoClip", "clip_high"),
    ("Gspo", "clip_high"),
    ("Cispo", "clip_high"),
    ("TokenMask", "high"),
    ("GeometricRejection", "high"),
    ("OptimizerConfig", "max_grad_norm"),
}
NEGATIVE = {("MeshConfig", axis) for axis in ("data", "fsdp", "context", "tensor")}  # -1: the rest
SKIPPED = {"jaxtool.plan", "jaxtool.study", "jaxtool.report", "jaxtool.judges"}
# What a setting is called in another place, or checked by the part that it goes into.
ELSEWHERE = {("HfDirectory", "attention_block"), ("GgufFile", "attention_block")}
REQUIRED = {  # of classes that cannot be built from ones
    "ModelConfig": {
        **dict.fromkeys(("vocab_size", "d_model", "d_ff", "num_layers", "num_heads"), 4),
        "num_kv_heads": 2,
        "head_dim": 4,
    },
}


def classes():
    """Frozen dataclasses of the library whose names stand in a gin file."""
    text = "\n".join(path.read_text() for path in (ROOT / "gin_configs").rglob("*.gin"))
    words = set(re.findall(r"\w+", text))
    found = {}
    for module in pkgutil.walk_packages(jaxtool.__path__, "jaxtool."):
        package = ".".join(module.name.split(".")[:2])
        if package in SKIPPED or module.name.endswith("__main__"):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            is_own = isinstance(kind, type) and kind.__module__ == module.name
            if is_own and dataclasses.is_dataclass(kind) and name in words:
                found[name] = kind
    return found


def numbers():
    """(class, field, bad value) of each."""
    for kind in classes().values():
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            types = set(typing.get_args(hints[field.name]) or (hints[field.name],))
            name = (kind.__name__, field.name)
            if name in ELSEWHERE or not types <= {int, float, type(None)}:
                continue
            if float in types:
                infinite = () if name in INFINITE else (math.inf,)
                yield from ((kind, field.name, bad) for bad in (math.nan, -math.inf, *infinite))
            elif int in types and name not in NEGATIVE:
                yield kind, field.name, -1


TRIED = list(numbers())


def test_the_settings_are_found():
    names = {kind.__name__ for kind, _, _ in TRIED}
    assert names >= {"Schedule", "OptimizerConfig", "GrpoConfig", "EngineConfig", "RolloutConfig"}
    assert len(TRIED) > 100


@pytest.mark.parametrize(
    ("kind", "field", "bad"), TRIED, ids=[f"{k.__name__}.{f}={b}" for k, f, b in TRIED]
)
def test_a_number_that_means_nothing_is_refused(kind, field, bad):
    required = {
        each.name: 1
        for each in dataclasses.fields(kind)
        if each.default is each.default_factory is dataclasses.MISSING
    }
    with pytest.raises(ValueError, match=field) as caught:
        kind(**(required | REQUIRED.get(kind.__name__, {}) | {field: bad}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(INFINITE))
def test_infinity_is_no_bound(name):
    kind, field = name
    classes()[kind](**{field: math.inf})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Schedule(steps=0), "Schedule.steps must be >= 1, got 0"),
        (lambda: Schedule(steps=1, eval_every=-1), "Schedule.eval_every must be >= 0"),
        (lambda: Schedule(steps=1, eval_problems=0), "Schedule.eval_problems must be >= 1"),
        (lambda: Schedule(steps=1, log_trajectories_every=-1), "log_trajectories_every must be"),
        (lambda: Schedule(steps=1, log_trajectories=0), "log_trajectories must be >= 1"),
        (lambda: Schedule(steps=1, pool=3), "self.pool=3 is smaller"),
        (lambda: OptimizerConfig(warmup_steps=-1), "OptimizerConfig.warmup_steps must be >= 0"),
        (lambda: OptimizerConfig(learning_rate=1e999), "learning_rate must be > 0 and finite"),
        (lambda: OptimizerConfig(learning_rate=0), "learning_rate must be > 0"),
        (lambda: OptimizerConfig(weight_decay=-0.1), "weight_decay must be >= 0"),
        (lambda: OptimizerConfig(max_grad_norm=0), "max_grad_norm must be > 0, got 0"),
        (lambda: AdamW(b1=1.0), "AdamW.b1 must be >= 0 and < 1, got 1.0"),
        (lambda: Muon(b2=-0.1), "Muon.b2 must be >= 0"),
        (lambda: Cosine(total_steps=0), "Cosine.total_steps must be >= 1"),
        (lambda: Cosine(total_steps=9, end_fraction=1.5), "end_fraction must be >= 0 and <= 1"),
        (lambda: GrpoConfig(kl_coef=-1e-3), "GrpoConfig.kl_coef must be >= 0"),
        (lambda: GrpoConfig(updates_per_batch=0), "updates_per_batch must be >= 1"),
        (lambda: CriticConfig(gamma=1.1), "CriticConfig.gamma must be >= 0 and <= 1"),
        (lambda: OtcGrpoReward(min_solve_rate=-0.1), "OtcGrpoReward.min_solve_rate must be"),
        (lambda: ToolBonus(limit=-1), "ToolBonus.limit must be >= 0"),
        (lambda: CallCost(per_tool=(("python", math.nan),)), "'python' must cost >= 0"),
        (lambda: RolloutConfig(max_response_tokens=0), "max_response_tokens=0 must be >= 1"),
        (lambda: SandboxClientConfig(cpu_limit_s=math.inf), "cpu_limit_s must be > 0 and finite"),
        (lambda: ArithmeticDemonstrations(calls_when_hard=(-0.5, 1.0, 0.5)), "calls_when_hard"),
        (lambda: ArithmeticDemonstrations(calls_when_hard=(math.nan, 0, 1)), "calls_when_hard"),
        (
            lambda: ModelConfig(**REQUIRED["ModelConfig"] | {"num_kv_heads": 0}),
            "ModelConfig.num_kv_heads must be >= 1",
        ),
        (
            lambda: RopeScaling(
                factor=0.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
            ),
            "RopeScaling.factor must be > 0",
        ),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name_and_value(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_never_logging_trajectories_is_a_choice():
    assert Schedule(steps=1, log_trajectories_every=0, eval_every=0).log_trajectories_every == 0


def test_rloo_over_a_critic_is_refused():
    grpo = GrpoConfig(advantage=LeaveOneOut())
    with pytest.raises(ValueError, match=r"GrpoConfig.advantage=LeaveOneOut\(\) does nothing"):
        check_critic(CriticConfig(), grpo, OtcGrpoReward())


@dataclasses.dataclass(frozen=True)
class Setting:
    x: object


@pytest.mark.parametrize(
    ("value", "range_", "message"),
    [
        (1.0, {"least": 1, "most": 2}, None),
        (None, {"least": 1}, None),
        ((), {"least": 1}, None),
        ((1, 2), {"least": 1}, None),
        (math.inf, {"above": 0, "may_be_infinite": True}, None),
        ((1, 0), {"least": 1}, r"Setting.x must be >= 1, got \(1, 0\)"),
        (math.nan, {"may_be_infinite": True}, "must be a number, got nan"),
        (math.nan, {}, "must be finite, got nan"),
        (-math.inf, {"most": 1}, "must be <= 1 and finite, got -inf"),
        (2, {"above": 0, "below": 2}, "must be > 0 and < 2, got 2"),
        (0, {"above": 0}, "must be > 0, got 0"),
    ],
)
def test_the_check_of_a_range(value, range_, message):
    if message is None:
        check_range(Setting(value), "x", **range_)
        return
    with pytest.raises(ValueError, match=message):
        check_range(Setting(value), "x", **range_)
