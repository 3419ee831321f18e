"""Writes what docs/plans says into docs/plans.md, docs/performance.md and the headers of the run files.

  python -m docs.plan_table
  python -m docs.plan_table --make --keep DIR [--only NAME ...]

--make plans the run files first, one after the other, each for its own slice, and writes docs/plans/NAME.json. That
takes hours on two cores. With --keep a second time takes minutes: what the compiler said of a program is read again,
and runs that share programs compile them once.
"""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from jaxtool.cli import entry
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.plan.chips import parse_slice
from jaxtool.plan.report import headline, table_row

PLANS = REPOSITORY_ROOT / "docs" / "plans"
RUN_FILES = REPOSITORY_ROOT / "gin_configs" / "runs"
# In the order of the table. Runs that share programs stand together.
TOPOLOGIES = {
    "retool_32b_v6e_64": "v6e-64",
    "retool_32b_v5p_128": "v5p-128",
    "retool_r1_distill_32b_v5p_128": "v5p-128",
    "retool_ppo_32b_v5p_128": "v5p-128",
    "retool_cold_start_32b": "v5p-128",
    "otc_grpo_7b_v6e_16": "v6e-16",
    "otc_grpo_7b_v5e_64": "v5e-64",
    "otc_ppo_7b_v5e_64": "v5e-64",
    "otc_grpo_qwen3_8b_v6e_16": "v6e-16",
    "otc_grpo_llama3_1_8b_v6e_16": "v6e-16",
    "torl_1_5b_v5e_8": "v5e-8",
    "stateful_qwen3_4b_v6e_64": "v6e-64",
    "long_qwen3_4b_v6e_64": "v6e-64",
    "search_r1_ppo": "v6e-16",
    "otc_ppo_search": "v6e-16",
    "search_r1_grpo": "v6e-16",
    "otc_grpo_search": "v6e-16",
}
# Seconds a step that docs/plans had at e282648, by the method and with the code of then: no kernels, no slowest host,
# the whole cache read in every step, products at the peak.
BEFORE_S = {
    "retool_32b_v6e_64": 3563,
    "retool_32b_v5p_128": 4138,
    "retool_r1_distill_32b_v5p_128": 4138,
    "retool_ppo_32b_v5p_128": 1006,
    "retool_cold_start_32b": 5,
    "otc_grpo_7b_v6e_16": 82,
    "otc_grpo_7b_v5e_64": 89,
    "otc_ppo_7b_v5e_64": 129,
    "otc_grpo_qwen3_8b_v6e_16": 141,
    "otc_grpo_llama3_1_8b_v6e_16": 129,
    "torl_1_5b_v5e_8": 150,
    "stateful_qwen3_4b_v6e_64": 1229,
    "search_r1_ppo": 48,
    "otc_ppo_search": 48,
    "search_r1_grpo": 138,
    "otc_grpo_search": 138,
}
_OLD = ", by the method before and its settings (docs/plans.md)"
TABLE = "| run | slice (devices) | HBM | step s | decode tok/s a chip | step tok/s a chip | of which | before, s |"
ANCHOR_TABLE = "| whose | what | chip | decode tok/s a chip | of HBM, tok/s per GB/s | step tok/s a chip | source |"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchor:
    """What somebody else measured. Per chip; None: not said."""

    whose: str
    what: str
    chip: str
    hbm_gb_s: float  # of the chip, by its maker
    decode: float | None = None
    step: float | None = None
    source: str


ANCHORS = (
    Anchor(
        whose="NeMo-RL v0.5",
        what="Qwen3-32B, GRPO on-policy, 2048 answers, mean 3251 tokens",
        chip="H100",
        hbm_gb_s=3350,
        step=571,
        source="NVIDIA-NeMo/RL, docs/about/performance-summary.md at 4c1a0cd49",
    ),
    Anchor(
        whose="NeMo-RL v0.5",
        what="the same, one step off-policy",
        chip="H100",
        hbm_gb_s=3350,
        step=538,
        source="the same page",
    ),
    Anchor(
        whose="NeMo-RL v0.6",
        what="Qwen3-30B-A3B (mixture of experts), on-policy, mean 3203",
        chip="H100",
        hbm_gb_s=3350,
        step=1102,
        source="the same page, newest version",
    ),
    Anchor(
        whose="verl",
        what="Qwen3.5-35B-A3B (mixture of experts), mean 12.7k; with partial rollouts 589",
        chip="H100",
        hbm_gb_s=3350,
        step=377,
        source="verl, docs/advance/v1_async_trainer.md",
    ),
    Anchor(
        whose="vLLM tpu-inference",
        what="Qwen3-32B, fp8 weights and cache, 1k in, 8k out, 135 sequences",
        chip="v7x",
        hbm_gb_s=7380,
        decode=4055,
        source="vllm-project/tpu-inference, pull request 1961",
    ),
    Anchor(
        whose="SGLang-JAX",
        what="Qwen3-32B, bfloat16, 1k in, 1k out, 64 sequences, prefill included",
        chip="v6e",
        hbm_gb_s=1640,
        decode=494,
        source="sglang-jax, docs/cookbook, Qwen3.md",
    ),
    Anchor(
        whose="SGLang-JAX",
        what="Qwen3-8B, bfloat16, 1k in, 1k out, 256 sequences, prefill included",
        chip="v6e",
        hbm_gb_s=1640,
        decode=1893,
        source="the same page",
    ),
)


def is_of_this_method(record: dict[str, Any]) -> bool:
    """Whether kernels and live tokens are in it; the method before had no rates (docs/plans.md)."""
    return "step_tokens_per_s_per_chip" in record


def records() -> list[dict[str, Any]]:
    """Of docs/plans, in the order of the table."""
    paths = [PLANS / f"{name}.json" for name in TOPOLOGIES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def row_of(record: dict[str, Any]) -> str:
    """The row of docs/plans.md."""
    before = BEFORE_S.get(Path(record["gin_file"]).stem, "-")
    return f"{table_row(record)} {before} |"


def anchor_rows(found: list[dict[str, Any]]) -> list[str]:
    """Rows of docs/performance.md: ours, then those of others."""
    rows = []
    for record in found:
        decode, step = (record.get(f"{part}_tokens_per_s_per_chip") for part in ("decode", "step"))
        if step is None or not is_of_this_method(record):
            continue
        chip = parse_slice(record["topology"]).chip
        name, told = Path(record["gin_file"]).stem, record["assumptions"]
        what = f"prompts of {told['prompt_tokens']:.0f} tokens, answers of {told['response_tokens']:.0f}"
        rows.append(
            _anchor_row(
                *("a plan of ours", f"`{name}`: {what}", chip.name, decode),
                *(
                    chip.hbm_bytes_per_s * chip.devices_per_chip / 1e9,
                    step,
                    f"[{name}.json](plans/{name}.json)",
                ),
            )
        )
    rows += [
        _anchor_row(a.whose, a.what, a.chip, a.decode, a.hbm_gb_s, a.step, a.source)
        for a in ANCHORS
    ]
    return rows


def _anchor_row(
    whose: str,
    what: str,
    chip: str,
    decode: float | None,
    hbm_gb_s: float,
    step: float | None,
    source: str,
) -> str:
    per_bandwidth = "-" if decode is None else f"{decode / hbm_gb_s:.2f}"
    shown = ["-" if x is None else f"{x:.0f}" for x in (decode, step)]
    return f"| {whose} | {what} | {chip} | {shown[0]} | {per_bandwidth} | {shown[1]} | {source} |"


def with_table(text: str, head: str, rows: list[str]) -> str:
    """`text` with the rows below a table's head replaced.

    Raises:
      ValueError: there is no such table.
    """
    lines = text.splitlines()
    if head not in lines:
        raise ValueError(f"no table begins with {head!r}")
    begin = lines.index(head)
    end = begin
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    rule = f"|{' --- |' * (head.count('|') - 1)}"
    return "\n".join([*lines[:begin], head, rule, *rows, *lines[end:]]) + "\n"


def with_header(text: str, record: dict[str, Any]) -> str:
    """A run file with the `# plan:` line of a record, in place of what it said of its memory or its plan."""
    line = f"# plan: {headline(record)}{'' if is_of_this_method(record) else _OLD}"
    return re.sub(r"^# (plan|memory): .*$", line.replace("\\", r"\\"), text, count=1, flags=re.M)


def write() -> None:
    """Tables and headers."""
    found = records()
    for page, head, rows in (
        ("plans.md", TABLE, [row_of(record) for record in found]),
        ("performance.md", ANCHOR_TABLE, anchor_rows(found)),
    ):
        path = PLANS.parent / page
        path.write_text(with_table(path.read_text(), head, rows))
    for record in found:
        path = REPOSITORY_ROOT / record["gin_file"]
        path.write_text(with_header(path.read_text(), record))


def make(names: list[str], keep: Path | None) -> None:
    """Plans run files by `experiments.plan`, each in a process of its own.

    Raises:
      subprocess.CalledProcessError: one of them failed; the records before it are written.
    """
    for name in names:
        command = [sys.executable, "-m", "experiments.plan", "--topology", TOPOLOGIES[name]]
        command += [
            "--gin_file",
            f"gin_configs/runs/{name}.gin",
            "--json",
            f"docs/plans/{name}.json",
        ]
        command += ["--keep", str(keep)] if keep else []
        subprocess.run(command, check=True, cwd=REPOSITORY_ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--make", action="store_true", help="plan first")
    parser.add_argument("--keep", type=entry.writable_folder, metavar="DIR", help="of the plans")
    parser.add_argument(
        "--only", action="append", choices=TOPOLOGIES, help="with --make; may be repeated"
    )
    arguments = parser.parse_args()
    if arguments.make:
        keep = arguments.keep and arguments.keep.absolute()
        make(arguments.only or list(TOPOLOGIES), keep)
    write()


if __name__ == "__main__":
    main()
