"""SIGKILL at random points of every phase, then the same command: is everything that of an unbroken run, bit by bit?

  python -m benchmarks.kill_drill [--phase all] [--seed 0] [--count 20] [--json PATH]

A point is drawn from (phase, seed, number): an occurrence of the phase, and a share of the time that it took in an unbroken
run. A thread kills the process then, whatever it does. What is compared: parameters of the policy, metrics and logged
trajectories without their times; for an evaluation its answers. Runs are those of the tests (tests/helpers/drill_runs.py),
of seconds each, on one CPU device; every process is a fresh one. Not covered: several hosts, machines that lose what was
not synced.

--json writes {"phases": {PHASE: {"kills", "survived": over before the kill, "differing": [what, after which kill]}},
"seconds", "machine"}. The exit status is 1 if anything differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.peers import machine
from jaxtool.cli import entry

TESTS = Path(__file__).resolve().parent.parent / "tests"
PHASES = (
    *("pretrain", "cold_start", "rollouts", "update", "writing", "validation", "rl"),
    *("evaluation", "sweep"),
)


def parse() -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--phase", choices=["all", *PHASES], default="all")
    flags.add_argument("--seed", type=int, default=0, help="of the points")
    flags.add_argument("--count", type=int, default=20, help="kills of each phase")
    entry.add_json_flag(flags, "write the figures here as well")
    return flags.parse_args()


def main() -> None:
    arguments, started = parse(), time.monotonic()
    phases = PHASES if arguments.phase == "all" else (arguments.phase,)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling is what small runs wait for
    }
    with tempfile.TemporaryDirectory(prefix="jaxtool_kills_") as folder:
        results = Path(folder) / "results.json"
        numbers = [str(arguments.seed), str(arguments.count)]
        subprocess.run(
            [sys.executable, "-m", "helpers.kill_drills", folder, str(results), *numbers, *phases],
            env=environment,
            cwd=TESTS.parent,
            check=True,
        )
        found = json.loads(results.read_text(encoding="utf-8"))
    record = {"phases": found, "seconds": time.monotonic() - started, "machine": machine({})}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    sys.exit(any(values["differing"] for values in found.values()))


if __name__ == "__main__":
    main()
