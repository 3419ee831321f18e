"""What a paged cache would save at a long response budget: `python -m benchmarks.cache_use`.

A calculation, not a measurement: rows with log-normal response lengths decode in cache rows that are
refilled at once. Ours keeps max_tokens positions for every row and reads, for every row, the view
that holds the longest live one; pages (of 16 tokens) would keep and read what is live. The cost of
reading through a page table is left out. Then the share of the cache in what a step reads, for three
policies in bfloat16: only that share of a step's time can be saved by reading less.
"""

import argparse
import json

import numpy as np

from jaxtool.cli import entry
from jaxtool.decode.config import doublings

BUDGET, PROMPT, PAGE = 16_384, 512, 16
# layers, kv heads, head width, parameters
POLICIES = {"0.5B": (24, 2, 64, 0.49e9), "1.5B": (28, 2, 128, 1.54e9), "7B": (28, 4, 128, 7.6e9)}


def simulate(
    cache_rows: int, median: float, spread: float, rows: int, seed: int
) -> dict[str, float]:
    """Means over all steps until the queue is empty, in cache positions."""
    numbers = np.random.default_rng(seed)
    lengths = np.clip(median * np.exp(spread * numbers.standard_normal(rows)), 16, BUDGET)
    queue = list(lengths.astype(int))
    left = np.array([queue.pop() for _ in range(cache_rows)])
    at = np.zeros(cache_rows, int)
    views = np.array(doublings(1024, BUDGET + PROMPT))
    live, read, paged = [], [], []
    stride = 32  # a window
    while queue:
        held = PROMPT + at
        live.append(held.sum())
        paged.append((-(-held // PAGE) * PAGE).sum())
        read.append(cache_rows * views[np.searchsorted(views, held.max() + stride)])
        at += stride
        for cache_row in np.flatnonzero(at >= left):
            if queue:
                left[cache_row], at[cache_row] = queue.pop(), 0
    return {
        "allocated": float(cache_rows * (BUDGET + PROMPT)),
        "read": float(np.mean(read)),
        "live": float(np.mean(live)),
        "paged": float(np.mean(paged)),
        "paged_peak": float(np.max(paged)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    entry.add_json_flag(parser, "write the figures here as well")
    arguments = parser.parse_args()
    record = []
    for median in (1500, 4000, 9000):
        for cache_rows in (16, 64):
            found = simulate(cache_rows, median, 0.8, 40 * cache_rows, 0)
            row = {"median": median, "decode_rows": cache_rows} | found
            row["rows_at_same_memory"] = found["allocated"] / found["paged_peak"]
            for name, (layers, heads, width, parameters) in POLICIES.items():
                token = 2 * layers * heads * width * 2
                ours = 2 * parameters + token * found["read"]
                theirs = 2 * parameters + token * found["paged"]
                row[f"{name} step"] = ours / theirs
            record.append(row)
            print(
                f"median {median}, {cache_rows} cache rows: allocated / live peak in pages "
                f"{row['rows_at_same_memory']:.1f}, read / paged {found['read'] / found['paged']:.1f}, "
                + ", ".join(
                    f"{name} bytes of a step {row[f'{name} step']:.2f}" for name in POLICIES
                )
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
