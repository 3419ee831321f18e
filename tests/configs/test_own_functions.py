"""A researcher's own reward and advantage, in a module outside the package, bound in a gin file."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.ledgers import group_of, ledger

from jaxtool.config import loader
from jaxtool.config.syntax import BoundFunction
from jaxtool.core.types import Problem, ToolStatus
from jaxtool.judges.base import Case
from jaxtool.learn.group_advantages import trajectory_advantages
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rewards.scoring import score_groups
from jaxtool.train.rl_config import RlConfig

RUN = "gin_configs/runs/quickstart_grpo.gin"
HEADER = "from __gin__ import dynamic_registration\n"
MODULE = '''
import dataclasses

import numpy as np

from jaxtool.core.types import Score


def fewest_wins(group, verdicts, costs, history, *, per_call: float = 0.5):
    """1 for a right answer, less per_call for each call beyond the fewest ever; a wrong one -1."""
    n = min(history.counts, default=0)
    return [
        Score(reward=1 - per_call * (m - n) if right else -1.0, is_correct=right.is_correct)
        for right, m in zip(verdicts, costs)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letters:
    weight: float = 0.01

    def __call__(self, group, verdicts, costs, history, /):
        return [
            Score(reward=self.weight * t.num_policy_tokens, is_correct=right.is_correct)
            for t, right in zip(group, verdicts)
        ]


@dataclasses.dataclass(kw_only=True)
class Thawed:
    def __call__(self, group, verdicts, costs, history, /):
        return []


def above_best(rewards, group_ids, num_groups, is_valid):
    """The reward minus the best of the group."""
    best = np.full(num_groups, -np.inf)
    np.maximum.at(best, group_ids[is_valid], rewards[is_valid])
    return rewards - best[group_ids]


def two(group, verdicts):
    return []


def one_short(group, verdicts, costs, history):
    return [Score(reward=0.0, is_correct=right.is_correct) for right in verdicts][1:]


def numbers(group, verdicts, costs, history):
    return [0.5 for _ in group]


def not_a_number(group, verdicts, costs, history):
    return [Score(reward=float("nan"), is_correct=right.is_correct) for right in verdicts]


def same_length(problem, answer, response):
    return answer is not None and len(answer) == len(problem.answer)


def of_groups(rewards, group_ids, num_groups, is_valid):
    return np.zeros(num_groups)


def over_the_spread(rewards, group_ids, num_groups, is_valid):
    return (rewards - rewards.mean()) / np.float32(0.0 * rewards.std())
'''


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """`my_rewards` in the folder of the run, and the same as `my_pkg.my_rewards`."""
    (tmp_path / "my_pkg").mkdir()
    for path in (tmp_path / "my_rewards.py", tmp_path / "my_pkg" / "my_rewards.py"):
        path.write_text(MODULE)
    (tmp_path / "my_pkg" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("my_rewards", "my_pkg", "my_pkg.my_rewards"):
        sys.modules.pop(name, None)


def load(folder: Path, *lines: str, imports: str = "import my_rewards") -> RlConfig:
    """The quickstart's GRPO run with these lines as an overlay."""
    overlay = folder / "own.gin"
    overlay.write_text(
        HEADER
        + f"{imports}\nfrom jaxtool.learn import grpo\nfrom jaxtool.train import rl_config\n"
        + "".join(f"{line}\n" for line in lines)
    )
    return loader.load(RlConfig, files=[RUN, overlay])


def group_of_four():
    """Two, one and no call, and one that no call can explain: three answers are right, one is not."""
    return [ledger("Qpp" + "ttp" * calls, calls=[ToolStatus.OK] * calls) for calls in (2, 1, 0, 1)]


RIGHT = [True, True, False, True]


def rewards_of(config: RlConfig) -> list[float]:
    group = group_of(*group_of_four(), is_correct=RIGHT)
    [scored] = score_groups([group], config.reward, CallStore())
    return [sample.score.reward for sample in scored.samples if sample.score]


def test_own_judge(own_module):
    """The answer in the box of "\\boxed{ab}" is as long as the reference "42"."""
    config = load(
        own_module,
        "from jaxtool.judges import function_judge",
        "rl_config.RlConfig.judge = @function_judge.PythonFunction()",
        "function_judge.PythonFunction.function = @my_rewards.same_length",
    )
    problem = Problem(problem_id="p", question="", answer="42")
    answers = ("ab", "abc")
    cases = [Case(problem=problem, answer=answer, response="") for answer in answers]
    with config.judge.open() as judge:
        assert list(map(bool, judge.judge(cases))) == [True, False]
    record = loader.write_operative_config(own_module / "run", config)
    assert loader.load(RlConfig, files=[record]) == config


@pytest.mark.parametrize("imports", ["import my_rewards", "from my_pkg import my_rewards"])
def test_own_reward_and_advantage_by_hand(own_module, imports):
    """n = 1, so two calls lose a half with the default and a quarter with 0.25."""
    reward = "rl_config.RlConfig.reward = @my_rewards.fewest_wins"
    advantage = "grpo.GrpoConfig.advantage = @my_rewards.above_best"
    config = load(own_module, reward, advantage, imports=imports)
    assert rewards_of(config) == [0.5, 1.0, -1.0, 1.0]
    config = load(
        own_module, reward, advantage, "my_rewards.fewest_wins.per_call = 0.25", imports=imports
    )
    assert isinstance(config.reward, BoundFunction)
    rewards = rewards_of(config)
    assert rewards == [0.75, 1.0, -1.0, 1.0]
    got = trajectory_advantages(
        np.array([*rewards, 9.0], np.float32),
        np.zeros(5, np.float32),
        np.zeros(5, np.int32),
        1,
        np.array([True] * 4 + [False]),  # the fifth is masked: not the best, and gets 0
        config.grpo,
    )
    np.testing.assert_array_equal(got, np.array([-0.25, 0, -2, 0, 0], np.float32))
    assert got.dtype == np.float32
    # The record of the run builds the same, and the choices can be static arguments of a program.
    record = loader.write_operative_config(own_module / "run", config)
    assert loader.load(RlConfig, files=[record]) == config
    assert hash(config.grpo) == hash(loader.load(RlConfig, files=[record]).grpo)


def test_own_dataclass_as_a_reward(own_module):
    """2 + 2, 2 + 1, 2 and 2 + 1 tokens of the policy, times 0.5."""
    config = load(
        own_module,
        "rl_config.RlConfig.reward = @my_rewards.Letters()",
        "my_rewards.Letters.weight = 0.5",
    )
    assert rewards_of(config) == [2.0, 1.5, 1.0, 1.5]


def test_shaping_is_added_to_an_own_advantage(own_module):
    """0 and -1 above the best; a shaping of -1 is held to 0.7 |A|, so it acts on the second alone."""
    config = load(own_module, "grpo.GrpoConfig.advantage = @my_rewards.above_best")
    got = trajectory_advantages(
        np.array([1, 0], np.float32),
        np.array([-1, -1], np.float32),
        np.zeros(2, np.int32),
        1,
        np.ones(2, bool),
        config.grpo,
    )
    np.testing.assert_allclose(got, [0.0, -1.7], rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (
            "rl_config.RlConfig.reward = @my_rewards.two",
            [
                "own.gin:5",
                "my_rewards.two(group, verdicts)",
                "f(group, verdicts, costs, history)",
            ],
        ),
        (
            "rl_config.RlConfig.reward = 'my_rewards:two'",
            ["own.gin:5", "got 'my_rewards:two'", "reference a function as @module.name"],
        ),
        (
            "grpo.GrpoConfig.advantage = @my_rewards.two",
            ["own.gin:5", "my_rewards.two", "f(rewards, group_ids, num_groups, is_valid)"],
        ),
        (
            "rl_config.RlConfig.reward = @my_rewards.Letters",
            ["own.gin:5", "my_rewards.Letters", "write () behind"],
        ),
        (
            "rl_config.RlConfig.reward = @my_rewards.Thawed()",
            ["own.gin:5", "my_rewards.Thawed", "frozen dataclass"],
        ),
    ],
)
def test_what_cannot_be_called_is_refused_before_the_run(own_module, line, parts):
    with pytest.raises(loader.ConfigError) as error:
        load(own_module, line)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one_short", "reward=my_rewards.one_short gave 3 scores for a group of 4; return one a"),
        (
            "numbers",
            r"reward=my_rewards.numbers gave \[0.5, 0.5, 0.5, 0.5\]; return a list of .*Score",
        ),
        ("not_a_number", "not_a_number gave reward=nan, .* member 0 .*; return finite numbers"),
    ],
)
def test_a_wrong_return_of_a_reward_names_the_function(own_module, name, message):
    config = load(own_module, f"rl_config.RlConfig.reward = @my_rewards.{name}")
    with pytest.raises(ValueError, match=message):
        rewards_of(config)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_groups", r"of_groups gave float64 of shape \(1,\) for 4 trajectories; return one"),
        ("over_the_spread", "over_the_spread gave nan for trajectory 0; return finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_wrong_return_of_an_advantage_names_the_function(own_module, name, message):
    config = load(own_module, f"grpo.GrpoConfig.advantage = @my_rewards.{name}")
    group = np.zeros(4, np.float32), np.zeros(4, np.int32), 1, np.ones(4, bool)
    with pytest.raises(ValueError, match=message):
        trajectory_advantages(np.ones(4, np.float32), *group, config.grpo)


def test_the_module_is_read_from_where_it_lies(own_module):
    load(own_module, "rl_config.RlConfig.reward = @my_rewards.fewest_wins")
    assert Path(importlib.import_module("my_rewards").__file__ or "").parent == own_module
