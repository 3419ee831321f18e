"""What a run asks of its tools between the rollouts of a step and its update.

1. Were too many trajectories lost? Then the run ends, or nothing is learned from this step.
2. Does every server still know the answers that we know? A wrong one ends the run before the update.
"""

import sys
from collections.abc import Iterable

from jaxtool.parallel import hosts
from jaxtool.tools.health import ToolHealth
from jaxtool.tools.known_answers import Asked, WrongAnswer
from jaxtool.train.rollout_batch import RolloutBatch
from jaxtool.train.rollout_worker import RolloutWorker
from jaxtool.train.rollouts import Rollouts


def check_tools(
    health: ToolHealth, worker: RolloutWorker, rollouts: Rollouts, batch: RolloutBatch, step: int
) -> tuple[RolloutBatch, dict[str, float]]:
    """The batch as it may be learned from, and metrics of the questions with known answers.

    Every host calls it with the same batch, and all of them end or go on.

    Raises:
      TooManyFailures: the tool's infrastructure lost too many of the latest trajectories.
      WrongAnswer: a server answers wrongly.
    """
    if worker.collector.renderer.tool is None:
        return batch, {}
    trajectories = batch.trajectories
    found = health.observe(
        lost=sum(trajectory.is_masked for trajectory in trajectories),
        trajectories=len(trajectories),
        reason=worker.collector.tools.last_trouble,
    )
    _warn(step, found.warnings)
    metrics = ask_known_answers(worker, rollouts, health.config.known_answers_every, step)
    return (batch if found.may_learn else batch.without_choice()), metrics


def ask_known_answers(
    worker: RolloutWorker, rollouts: Rollouts, every: int, step: int
) -> dict[str, float]:
    """Counts of the questions of a step, over all hosts; none where no question is due.

    A server that cannot be reached is counted and named. Whether that ends the run is decided by the
    trajectories that it loses: others may have taken its calls.

    Args:
      every: steps from one question to the next; 0: never.

    Raises:
      WrongAnswer: as the first wrong answer of any host says.
    """
    known = worker.known_answers
    if known is None or not every or (step + 1) % every:
        return {}
    each = hosts.exchange(rollouts.call_tools(lambda: known.ask(step)))
    wrong = [asked.wrong for asked in each if asked.wrong]
    if wrong:
        raise WrongAnswer(
            f"step {step}, before its update: {wrong[0]}; mend or leave out the server"
        )
    unreachable = [server for asked in each for server in asked.unreachable]
    _warn(step, [f"a known answer could not be asked: {server}" for server in unreachable])
    return {
        "tools/known_answers_count": float(sum(asked.programs for asked in each)),
        "tools/unreachable_servers_count": float(len(unreachable)),
    }


def check_known_answers(worker: RolloutWorker, number: int) -> None:
    """After an evaluation: raises WrongAnswer if a server answers wrongly.

    Args:
      number: of the round, which says what is asked.
    """
    if worker.known_answers is None:
        return
    check_known(worker.runner.run(worker.known_answers.ask(number)))


def check_known(found: Asked) -> None:
    """Raises WrongAnswer if a server answered a question wrongly."""
    if found.wrong:
        raise WrongAnswer(f"{found.wrong}; mend or leave out the server and evaluate again")


def _warn(step: int, warnings: Iterable[str]) -> None:
    if hosts.is_first():
        for warning in warnings:
            print(f"warning: step {step}: {warning}", file=sys.stderr, flush=True)
