"""How many rows a pool of pages holds, against one allocation per row: `python -m benchmarks.paged_rows`.

The engine's own bookkeeping (`jaxtool.plan.paged_rows`) decodes one host's share of retool_32b_v6e_64.gin on
paper, in the memory of 24 rows. Nothing is computed by a model and no time is measured.
"""

import argparse
import json

from jaxtool.cli import entry
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.plan.paged_rows import PagedRows, paged_rows

MAX_TOKENS, ROWS = 18_432, 24
POOL = ROWS * MAX_TOKENS
# page, headroom, decode rows. The first is one allocation per row.
CASES = (
    (MAX_TOKENS, 0, 24),
    (2048, 1024, 128),
    (1024, 1024, 128),
    (1024, 1024, 96),
    (1024, 512, 128),
    (1024, 2048, 128),
    (256, 1024, 128),
)


def rows_of(page: int, headroom: int, decode_rows: int) -> PagedRows:
    pages = PagesConfig(page_tokens=page, pool_tokens=POOL, headroom_tokens=headroom)
    engine = EngineConfig(
        decode_rows=decode_rows, max_tokens=MAX_TOKENS, window_steps=64, pages=pages
    )
    return paged_rows(
        engine,
        problems=32,
        samples=16,
        prompt_tokens=256,
        response_tokens=8192,
        limit=16_384,
        spread=0.7,
        problem_share=0.5,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    entry.add_json_flag(parser, "write the figures here as well")
    arguments = parser.parse_args()
    records = []
    print("| page | headroom | decode rows | windows | rows a window, mean | most | rows moved |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for page, headroom, decode_rows in CASES:
        found = rows_of(page, headroom, decode_rows)
        print(
            f"| {page} | {headroom} | {decode_rows} | {found.windows} | {found.rows:.1f} | "
            f"{found.most_rows} | {found.moved_rows} |",
            flush=True,
        )
        records.append({"page": page, "headroom": headroom, "rows": decode_rows} | vars(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
