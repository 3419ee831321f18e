"""Kills at random points of a phase, resumes, and compares; the tests draw a few points, the nightly command 20 a phase."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from helpers.drills import Fault, Spec, durations, fingerprints, random_kill, run_child

KILLED = -9
_SHOWN = 8  # names in a line of what differs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drill:
    """A phase of a kind of run."""

    kind: str  # of `drill_runs.KINDS`
    phase: str  # of the loop, or "whole" or "writing"


DRILLS = {
    "pretrain": Drill(kind="pretrain", phase="whole"),
    "cold_start": Drill(kind="cold_start", phase="whole"),
    "rollouts": Drill(kind="rl", phase="rollouts"),
    "update": Drill(kind="rl", phase="update"),
    "writing": Drill(kind="rl", phase="writing"),  # of a checkpoint
    "validation": Drill(kind="rl", phase="validation"),
    "rl": Drill(kind="rl", phase="whole"),
    "evaluation": Drill(kind="evaluation", phase="whole"),
    "sweep": Drill(kind="sweep", phase="whole"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Of one drill."""

    kills: int  # that came before the run ended by itself
    survived: int  # the run was over before its kill
    differing: list[str]  # what was not that of the unbroken run, with the point of the kill


def drill(
    drill: Drill, folder: Path, *, seed: int, count: int, report: Callable[[str], None] = print
) -> Result:
    """Kills `count` runs, each at another point; a run that is over before is compared too and not counted.

    Args:
      folder: drills of one kind share the unbroken run in it.
    """
    shared = folder / drill.kind
    shared.mkdir(parents=True, exist_ok=True)
    whole = Spec(kind=drill.kind, folder=shared, workdir=shared / "whole")
    if not whole.notes.exists():
        # Twice: the first compiles, the second's phases take as long as those of a run that is killed.
        for spec in (dataclasses.replace(whole, workdir=shared / "first"), whole):
            ended = run_child(spec)
            assert ended.code == 0, ended.said
    expected, usual = fingerprints(whole.workdir), durations(whole)
    assert expected
    kills, survived, differing = 0, 0, []
    while kills < count and survived <= count:  # on a busy machine the usual time may be too long
        number = kills + survived
        workdir = shared / f"{drill.phase}-{seed}-{number}"
        kill = random_kill(drill.phase, seed, number, usual)
        spec = Spec(kind=drill.kind, folder=shared, workdir=workdir, fault=Fault(kill=kill))
        broken = run_child(spec)
        assert broken.code in (0, KILLED), broken.said
        kills += broken.code == KILLED
        survived += broken.code != KILLED
        resumed = run_child(dataclasses.replace(spec, fault=Fault()))
        assert resumed.code == 0, resumed.said
        found = fingerprints(workdir)
        names = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        differing += [f"{name} after {kill}" for name in names]
        report(
            f"{drill.kind} {kill.phase} {kill.occurrence} + {kill.delay_s:.3f} s: "
            f"{'killed' if broken.code else 'over before'}, {', '.join(names[:_SHOWN]) or 'equal'}"
        )
        shutil.rmtree(workdir)
    return Result(kills=kills, survived=survived, differing=differing)


def main() -> None:
    """`python -m helpers.kill_drills FOLDER RESULTS SEED COUNT PHASE ...`, for benchmarks.kill_drill."""
    folder, results, seed, count, *phases = sys.argv[1:]
    found = {}
    for name in phases:
        result = drill(DRILLS[name], Path(folder), seed=int(seed), count=int(count), report=_say)
        found[name] = dataclasses.asdict(result)
        _say(f"{name}: {result.kills} kills, {result.survived} over before, {result.differing}")
        Path(results).write_text(json.dumps(found))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
