"""SIGKILL at random points of every phase, then the same command: is everything that of an unbroken run, bit by bit?

  python -m benchmarks.kill_drill [--phase all] [--seed 0] [--count 20] [--json PATH]

A point is drawn from (phase, seed, number): an occurrence of the phase, and a share of the time that it took in an unbroken
run. A thread kills the process then, whatever it does. What is compared: parameters of the policy, metrics and logged
trajectories without their times; for an evaluation its answers. Runs are those of the tests, of seconds each, on one CPU
device; every process is a fresh one. Not covered: several hosts (tests/parallel), machines that lose what was not synced.

--json writes {"phases": {PHASE: {"kills", "survived": over before the kill, "differing": [what, after which kill]}},
"seconds", "machine"}. The exit status is 1 if anything differs.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault(
    "JAX_PLATFORMS", "cpu"
)  # small runs; before jax is imported here or in a child
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

from benchmarks.peers import machine
from jaxtool.cli import entry

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))  # children get it as well
    from helpers.kill_drills import DRILLS, drill

    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--phase", choices=["all", *DRILLS], default="all")
    flags.add_argument("--seed", type=int, default=0, help="of the points")
    flags.add_argument("--count", type=int, default=20, help="kills of each phase")
    entry.add_json_flag(flags, "write the figures here as well")
    arguments = flags.parse_args()
    started, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="jaxtool_kills_") as folder:
        for name in DRILLS if arguments.phase == "all" else [arguments.phase]:
            result = drill(DRILLS[name], Path(folder), seed=arguments.seed, count=arguments.count)
            found[name] = vars(result)
            print(
                f"{name}: {result.kills} kills, {result.survived} over before, "
                f"{len(result.differing)} differ",
                flush=True,
            )
    record = {"phases": found, "seconds": time.monotonic() - started, "machine": machine()}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    sys.exit(any(values["differing"] for values in found.values()))


if __name__ == "__main__":
    main()
