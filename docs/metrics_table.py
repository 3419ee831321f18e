"""Writes docs/metrics.md from the table of metrics.

python -m docs.metrics_table
"""

from pathlib import Path

from jaxtool.rundir.metric_table import METRICS

_HEAD = """# Metrics

Every metric of a run, in one line each. `metrics.jsonl` in the work directory has one row a step; TensorBoard and the
report show the same numbers. A share (`..._fraction`) lies between 0 and 1. A total counts since the run began. Groups
with a lost answer are in no mean; `tools/infrastructure_failed_fraction` says how many answers were lost.

`experiments.train --log` sends them to W&B, MLflow or Trackio as well ([runs.md](runs.md)).

Two equal runs have equal metrics but for those of the clock: `time_s`, `timing/...`, `tokens/sampled_per_s`,
`tokens/useful_...` and `health/beyond_count/late_programs`. How full the decoder was depends on how fast tools answered. What servers and caches count
(`tools/..._hits_total`, `tools/executions_total`) also depends on what they did before.

This page is written by `python -m docs.metrics_table` from `jaxtool/rundir/metric_table.py`; a test compares.
"""


def text() -> str:
    """The page: a table for each area, in the order of the table of metrics."""
    lines, area = [_HEAD], ""
    for name, meaning in METRICS.items():
        if name.split("/")[0] != area:
            area = name.split("/")[0]
            lines += [f"## {area}", "| metric | meaning |", "| --- | --- |"]
        lines.append(f"| `{name}` | {meaning} |")
        following = list(METRICS)[list(METRICS).index(name) + 1 :]
        if following and following[0].split("/")[0] != area:
            lines.append("")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("metrics.md").write_text(text(), encoding="utf-8")
