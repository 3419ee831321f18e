"""The reward of a correct answer with 0 to 6 calls, for every variant, computed by the rewards themselves.

  python -m docs.rewards_table [--json PATH]

Prints the Markdown table of docs/rewards.md (a test compares). PATH gets a list of {"variant", "gin",
"fewest_calls": n or null, "correct": seven rewards, "wrong": seven rewards}.
"""

import argparse
import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from jaxtool.cli import entry
from jaxtool.core.types import (
    Origin,
    Problem,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
    Verdict,
)
from jaxtool.rewards import decay
from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.budgets import Budget, summed
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward, OutcomeReward
from jaxtool.rewards.terms import (
    LengthPenalty,
    OverlongPunishment,
    RewardTerms,
    ToolBonus,
    TurnPenalty,
)

MAX_CALLS = 6
# Of the run that the table shows; c, N_max and L are these.
BUDGET = Budget(max_response_tokens=160, max_tool_calls=3)
# Tokens of the table's trajectories: a text, and for each call its code and what came back.
TEXT_TOKENS, CODE_TOKENS, OBSERVATION_TOKENS = 40, 20, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table."""

    name: str
    gin: str  # files of gin_configs/algos, or the binding that makes it
    outcome: RewardFn = dataclasses.field(default_factory=OutcomeReward)
    terms: RewardTerms = dataclasses.field(default_factory=RewardTerms)
    fewest_calls: int | None = None  # n
    call_cost: CallCost = dataclasses.field(default_factory=CallCost)
    tools: tuple[str, ...] = ("python",)  # called in turn
    wrong_peers: int = 0  # other answers of its group that are wrong: 2 make the problem a hard one

    @property
    def reward(self) -> RewardFn:
        """Of outcome and terms, with the budgets of the table."""
        return summed(self.outcome, self.terms, BUDGET)

    def rewards(self, *, is_correct: bool) -> list[float]:
        """Reward with 0..6 calls; for a reward that shapes, the shaping of the advantage."""
        known = [] if self.fewest_calls is None else [float(self.fewest_calls)]
        history = CallHistory().with_group(known)
        verdicts = [Verdict.plain(c, "") for c in (is_correct, *[False] * self.wrong_peers)]
        reward, out = self.reward, []
        for calls in range(MAX_CALLS + 1):
            trajectory = trajectory_with(calls, self.tools)
            costs = [self.call_cost.cost(trajectory)] * len(verdicts)
            score = reward([trajectory] * len(verdicts), verdicts, costs, history)[0]
            shapes = isinstance(reward, CallShapingReward)
            out.append(score.shaping if shapes else score.reward)
        return out


def variants() -> list[Variant]:
    """Every reward of the package."""
    rows = [Variant(name="ReTool outcome", gin="grpo.gin", outcome=OutcomeReward())]
    rows += [
        Variant(name="OTC-PPO, cosine", gin="otc_ppo_reward.gin", outcome=OtcPpoReward()),
        Variant(
            name="OTC-PPO, linear",
            gin="OtcPpoReward.decay = @decay.linear",
            outcome=OtcPpoReward(decay=decay.linear),
        ),
        Variant(
            name="OTC-PPO, exponential",
            gin="OtcPpoReward.decay = @decay.exponential",
            outcome=OtcPpoReward(decay=decay.exponential),
        ),
    ]
    for n in (0, 1, 2):
        rows.append(
            Variant(name="OTC-GRPO", gin="otc_grpo.gin", outcome=OtcGrpoReward(), fewest_calls=n)
        )
    for shape in (decay.linear, decay.exponential):
        rows.append(
            Variant(
                name=f"OTC-GRPO, {shape.__name__}",
                gin=f"otc_{shape.__name__}.gin",
                outcome=OtcGrpoReward(decay=shape),
                fewest_calls=1,
            )
        )
    for problem, wrong_peers in (("an easy problem", 0), ("a hard problem", 2)):
        rows.append(
            Variant(
                name=f"OTC-GRPO, easy problems only: {problem}",
                gin="otc_easy_only.gin",
                outcome=OtcGrpoReward(min_solve_rate=0.5),
                fewest_calls=1,
                wrong_peers=wrong_peers,
            )
        )
    priced = CallCost(per_call=0.25, per_code_token=0.02, per_observation_token=0.01)
    return [
        *rows,
        Variant(
            name="OTC-GRPO, a call 0.25, a code token 0.02, an observed one 0.01",
            gin="otc_priced.gin",
            outcome=OtcGrpoReward(),
            fewest_calls=0,
            call_cost=priced,
        ),
        Variant(
            name="OTC-GRPO, a call of the sandbox 0.5",
            gin="otc_per_tool.gin",
            outcome=OtcGrpoReward(),
            fewest_calls=0,
            call_cost=CallCost(per_tool=(("python", 0.5),)),
        ),
        Variant(
            name="OTC-GRPO, the same, every second call another tool's",
            gin="otc_per_tool.gin",
            outcome=OtcGrpoReward(),
            fewest_calls=0,
            call_cost=CallCost(per_tool=(("python", 0.5),)),
            tools=("python", "search"),
        ),
        Variant(name="AdaTIR, easy problem", gin="adatir.gin", outcome=AdaTirReward()),
        Variant(
            name="AdaTIR, hard problem", gin="adatir.gin", outcome=AdaTirReward(), wrong_peers=2
        ),
        Variant(
            name="advantage shaping (the shaping)",
            gin="otc_shaping.gin",
            outcome=CallShapingReward(),
            fewest_calls=1,
        ),
        Variant(name="tool bonus", gin="tool_bonus.gin", terms=RewardTerms(tool_bonus=ToolBonus())),
        Variant(
            name="turn penalty", gin="turn_penalty.gin", terms=RewardTerms(turns=TurnPenalty())
        ),
        Variant(
            name="length penalty",
            gin="length_penalty.gin",
            terms=RewardTerms(length=LengthPenalty()),
        ),
        Variant(
            name="overlong punishment",
            gin="overlong.gin",
            terms=RewardTerms(overlong=OverlongPunishment()),
        ),
        Variant(
            name="OTC-GRPO and overlong punishment",
            gin="otc_grpo.gin overlong.gin",
            outcome=OtcGrpoReward(),
            terms=RewardTerms(overlong=OverlongPunishment()),
            fewest_calls=0,
        ),
    ]


def trajectory_with(calls: int, tools: Sequence[str] = ("python",)) -> Trajectory:
    """A ledger of one prompt token, text, and `calls` calls of fixed lengths, of `tools` in turn."""
    origins = [Origin.PROMPT]
    tool_calls = []
    for number in range(calls):
        start = len(origins)
        origins += [Origin.POLICY] * CODE_TOKENS + [Origin.TOOL] * OBSERVATION_TOKENS
        tool_calls.append(
            ToolCall(
                tool=tools[number % len(tools)],
                arguments={"code": "1"},
                result=ToolResult(status=ToolStatus.OK),
                start=start,
                stop=start + CODE_TOKENS,
                observation_stop=len(origins),
            )
        )
    origins += [Origin.POLICY] * TEXT_TOKENS
    kinds = np.array(origins, np.int8)
    return Trajectory(
        problem=Problem(problem_id="table", question="", answer=""),
        sample=0,
        ids=np.zeros(len(kinds), np.int32),
        origins=kinds,
        behaviour_logprobs=np.zeros(len(kinds), np.float32),
        policy_versions=np.where(kinds == Origin.POLICY, 0, -1).astype(np.int32),
        tool_calls=tuple(tool_calls),
    )


def markdown(rows: Sequence[Variant]) -> str:
    """The table, one line a variant, one more where wrong answers depend on calls."""
    heads = ["variant", "gin", "n", *map(str, range(MAX_CALLS + 1)), "wrong"]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for row in rows:
        correct, wrong = row.rewards(is_correct=True), row.rewards(is_correct=False)
        n = "" if row.fewest_calls is None else str(row.fewest_calls)
        low, high = _shown(min(wrong)), _shown(max(wrong))
        cells = [row.name, f"`{row.gin}`", n, *map(_shown, correct)]
        cells.append(low if low == high else f"{_shown(wrong[0])} to {_shown(wrong[-1])}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(value: float) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_json_flag(parser, "write the numbers here as well")
    arguments = parser.parse_args()
    rows = variants()
    print(markdown(rows))
    if arguments.json:
        record = [
            {
                "variant": row.name,
                "gin": row.gin,
                "fewest_calls": row.fewest_calls,
                "correct": row.rewards(is_correct=True),
                "wrong": row.rewards(is_correct=False),
            }
            for row in rows
        ]
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
