"""Looks at this host before a run, in at most 30 s: what is there, what is missing, what to do about it.

  python -m experiments.doctor
  python -m experiments.doctor --workdir runs/mine --needs_gib 100 --bucket gs://my-bucket/runs \
      --coordinator 10.0.0.1:9000

Each line is ok, warn (a run starts, and is slower or weaker than it could be) or fail. The exit status is 1 if one
failed. Servers are asked as a run asks them; without --sandbox one is started and ended again.

--json PATH writes {"is_ok", "failed": names, "warned": names, "findings": [{"name", "status": "ok" | "warn" | "fail",
"text", "remedy"}]}.
"""

import argparse
import json
import sys
from pathlib import Path

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--workdir",
        default="runs",
        help="directory of a run, whose disk is looked at; 64 MiB are written and deleted; default: runs",
    )
    parser.add_argument(
        "--needs_gib", type=float, default=20.0, help="room that the run needs there; default: 20"
    )
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    parser.add_argument(
        "--bucket", help="gs://BUCKET/PATH or s3://BUCKET/PATH; a small object is written there"
    )
    parser.add_argument("--coordinator", help="host:port of process 0 of a run on several hosts")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        help="host:port that must be reached; may be repeated",
    )
    entry.add_json_flag(parser, "write the findings here as well")
    arguments = parser.parse_args()
    if not arguments.needs_gib > 0:
        parser.error(f"--needs_gib {arguments.needs_gib:g} must be above 0")
    return arguments


def main() -> None:
    arguments = parse()
    from jaxtool.cluster import doctor, findings
    from jaxtool.config.places import as_typed

    peers = ([arguments.coordinator] if arguments.coordinator else []) + arguments.peer
    checks = doctor.checks_of(
        workdir=Path(arguments.workdir),
        needs_gib=arguments.needs_gib,
        sandbox=tuple(arguments.sandbox),
        search=tuple(arguments.search),
        bucket=arguments.bucket,
        peers=tuple(peers),
    )
    found = []
    for one in findings.run_checks(checks):
        print(as_typed(str(one)), flush=True)
        found.append(one)
    record = findings.as_json(found)
    if arguments.json:
        from jaxtool.core.files import write_text

        write_text(arguments.json, json.dumps(record, indent=1))
    sys.exit(not record["is_ok"])


if __name__ == "__main__":
    entry.run(main)
