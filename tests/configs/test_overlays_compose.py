"""Every ordered pair of overlays over a run: both act, or the pair is refused with both files named.

What an overlay says is read here with gin's own parser, so that the loader does not check itself.
"""

import dataclasses
import functools
import itertools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from gin import config_parser
from helpers.ledgers import ledger

from jaxtool.config import loader
from jaxtool.core.types import Verdict
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rewards.outcome import OtcGrpoReward
from jaxtool.train.rl_config import RlConfig, reward_of

RIGHT, WRONG = Verdict.plain(True, "a test"), Verdict.plain(False, "a test")
CONFIGS = loader.REPOSITORY_ROOT / "gin_configs"
RUN = CONFIGS / "runs" / "quickstart_grpo.gin"
LONG_RUN = CONFIGS / "runs" / "retool_32b_v6e_64.gin"
OVERLAYS = {path.stem: path for path in sorted((CONFIGS / "algos").glob("*.gin"))}
# What adds to any reward of the outcome.
TERMS = ("overlong", "length_penalty", "turn_penalty", "tool_bonus", "dapo")


class Written(config_parser.ParserDelegate):
    """References as the name of their class, behind an @."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return "@" + scoped_configurable_name.split("/")[-1].split(".")[-1]

    def macro(self, macro_name: str) -> Any:
        raise AssertionError(f"an overlay has no macros: %{macro_name}")


@functools.cache
def bindings_of(path: pathlib.Path) -> list[tuple[str, str, str, Any]]:
    """(scope, class, parameter, value) of each line of an overlay."""
    with path.open() as file:
        return [
            (s.scope, s.selector.split(".")[-1], s.arg_name, s.value)
            for s in config_parser.ConfigParser(file, Written())
            if isinstance(s, config_parser.BindingStatement)
        ]


def parts_of(value: Any) -> Iterator[Any]:
    """A configuration and all dataclasses in it."""
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from parts_of(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from parts_of(item)


def is_as_written(value: Any, written: Any) -> bool:
    if isinstance(written, str) and written.startswith("@"):
        return written[1:] in (type(value).__name__, getattr(value, "__name__", ""))
    if isinstance(written, tuple):
        pairs = zip(value, written, strict=True)
        return len(value) == len(written) and all(is_as_written(v, w) for v, w in pairs)
    return value == written


def check_acts(name: str, config: RlConfig) -> None:
    """Every line of the overlay is true of some part of the configuration."""
    parts = list(parts_of(config))
    for _, of, parameter, written in bindings_of(OVERLAYS[name]):
        values = [getattr(part, parameter) for part in parts if type(part).__name__ == of]
        assert any(is_as_written(value, written) for value in values), (name, of, parameter)


def built(*names: str, run: pathlib.Path = RUN) -> RlConfig:
    return loader.load(RlConfig, files=[run, *(OVERLAYS[name] for name in names)])


def together(first: str, second: str) -> RlConfig | None:
    """The run with both overlays, in which both act, or None where it is refused by name."""
    try:
        config = built(first, second)
    except loader.ConfigError as error:
        message = str(error)
    else:
        check_acts(first, config)
        check_acts(second, config)
        return config
    for name in (first, second):
        assert f"gin_configs/algos/{name}.gin:" in message, (first, second, message)
    assert "\n" not in message
    return None


@pytest.mark.parametrize("first", OVERLAYS)
def test_a_pair_acts_together_or_is_refused_by_name_and_order_does_not_matter(first):
    """With each overlay that comes after it by name, in both orders."""
    for second in list(OVERLAYS)[list(OVERLAYS).index(first) + 1 :]:
        assert together(first, second) == together(second, first), second


def test_the_check_of_a_pair_sees_an_overlay_that_does_not_act():
    with pytest.raises(AssertionError, match="otc_grpo"):
        check_acts("otc_grpo", built("overlong"))
    with pytest.raises(AssertionError, match="overlong"):
        check_acts("overlong", built("otc_grpo"))


@pytest.mark.parametrize("term", [*TERMS, "otc_linear", "otc_window", "gspo", "lora", "rloo"])
def test_otc_stays_beside_what_adds_to_it(term):
    for pair in itertools.permutations(("otc_grpo", term)):
        assert isinstance(built(*pair).reward, OtcGrpoReward)


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("otc_grpo", "retool_ppo", "RlConfig.reward = "),
        ("otc_grpo", "otc_ppo", "RlConfig.reward = "),
        ("otc_grpo", "adatir", "RlConfig.reward = "),
        ("dapo", "refill", "Selection.max_draws = "),
        ("otc_window", "otc_quantile", "OtcGrpoReward.estimator = "),
        ("adam8bit", "adafactor", "OptimizerConfig.rule = "),
        ("gspo", "dr_grpo", "GrpoConfig.aggregation = "),
        ("retool_ppo", "rloo", "GrpoConfig.advantage=LeaveOneOut() does nothing"),
        ("bypass", "token_tis", "would do it twice"),
    ],
)
def test_what_does_not_go_together_is_refused_for_its_reason(one, other, what):
    for pair in itertools.permutations((one, other)):
        with pytest.raises(loader.ConfigError, match=re.escape(what)):
            built(*pair)


def test_all_terms_add_up_over_otc():
    """A wrong answer of one call and 90 of 96 tokens, by hand; a right one gets r_tool on top."""
    config = built("otc_grpo", "overlong", "length_penalty", "turn_penalty", "tool_bonus")
    call = ledger("Q" + "p" * 80 + "t" * 9 + "p", calls=["ok"])
    scores = reward_of(config)(
        [call, call], [WRONG, RIGHT], [1.0, 1.0], CallHistory().with_group([0.0])
    )
    overlong, length = -(90 - 77) / 19, -0.5 * 81 / 96
    assert scores[0].reward == pytest.approx(overlong + length - 0.1 + 0.1)
    assert scores[1].reward == pytest.approx(0.8090170 + overlong + length - 0.1)


@pytest.mark.parametrize(
    ("name", "tokens", "reward"),
    [
        ("overlong", 2000, 1.0),  # with the toy's 96 tokens it was 0
        ("overlong", 13108, 1.0),  # 16384 - 3276
        ("overlong", 16384, 0.0),
        ("length_penalty", 8000, 1 - 0.5 * 8000 / 16384),  # at 0.005 a token it was -39
        ("dapo", 2000, 1.0),
    ],
)
def test_overlays_know_the_budget_of_a_long_run(name, tokens, reward):
    [score] = reward_of(built(name, run=LONG_RUN))(
        [ledger("Q" + "p" * tokens)], [RIGHT], [0.0], CallHistory()
    )
    assert score.reward == pytest.approx(reward)


def test_overlays_hold_no_budget():
    """Numbers of the task have one home, the run: the same files fit 96 tokens and 16,384."""
    budgets = {"c", "max_calls", "max_tokens", "cache_tokens", "constant_tokens"}
    assert len(OVERLAYS) > 40
    for name, path in OVERLAYS.items():
        assert not budgets & {parameter for *_, parameter, _ in bindings_of(path)}, name
    for name in ("otc_grpo", "otc_ppo", "adatir", "otc_shaping", "dr_grpo", *TERMS):
        built(name, run=LONG_RUN)
