"""Shows a run from another terminal while it runs: step, progress within it, last metrics, bottleneck, warnings, time left.

  python -m experiments.top runs/mine
  python -m experiments.top runs/mine --once --json now.json

Reads the run's files alone, on this machine or on a disk that both see; it may be started and ended at any time. It ends
with the run, and with --once or where its output is no terminal after one look. A run that has ended is shown as it ended.

--json PATH is replaced with every look: {"path", "recipe", "state", "ending": how it ended or null, "process": that holds the
lock or null, "is_silent", "step": steps made, "steps", "live": the run's live.json or null, "seen_s": its age in seconds,
"left_step_s", "left_run_s": seconds or null, "metrics": {name: last value}, "bottleneck": {"part", "share"} or null,
"warnings": {kind: text}, "last": the last row of metrics.jsonl}.
"""

import argparse
import contextlib
import json
import time
from pathlib import Path

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdir", type=entry.local_path, help="work directory of the run")
    parser.add_argument("--once", action="store_true", help="look once and end")
    parser.add_argument(
        "--every_s", type=float, default=2.0, help="seconds between two looks; default: 2"
    )
    entry.add_json_flag(parser, "write what is seen here as well")
    arguments = parser.parse_args()
    if not arguments.every_s >= 0.1:
        parser.error(f"--every_s {arguments.every_s:g} must be at least 0.1 seconds")
    return arguments


def main() -> None:
    arguments = parse()
    from rich.console import Console
    from rich.live import Live

    console = Console()
    text, is_running = look(arguments.workdir, arguments.json)
    if arguments.once or not is_running or not console.is_terminal:
        print(text)
        return
    # Ctrl-C ends the look and not the run.
    with contextlib.suppress(KeyboardInterrupt), Live(_plain(text), console=console) as live:
        while is_running:
            time.sleep(arguments.every_s)
            text, is_running = look(arguments.workdir, arguments.json)
            live.update(_plain(text), refresh=True)


def look(workdir: Path, record: Path | None) -> tuple[str, bool]:
    """What is seen now, as lines, and whether the run runs."""
    from jaxtool.core.files import write_text
    from jaxtool.rundir.run_top import as_json, lines, read_top

    view = read_top(workdir)
    if record is not None:
        write_text(record, json.dumps(as_json(view), indent=1))
    return "\n".join(lines(view)), view.is_running


def _plain(text: str):
    from rich.text import Text

    return Text(text)


if __name__ == "__main__":
    entry.run(main)
