"""Writes the gin file of a run from a model, a file of problems, a recipe and a machine.

  python -m experiments.new_run --model Qwen2.5-1.5B-Instruct --data gsm8k_train.jsonl --recipe retool_grpo \
      --hardware a100-80g --out my_run.gin
  python -m experiments.train --gin_file my_run.gin --dry_run

--model takes every name of weights (docs/weights.md). --data takes NAME[=FILE], or a FILE whose layout is recognised by its
first rows, or FILE with --layout. Prompt lengths are measured with the model's own tokenizer, and the judge is the one that
can read the answers. Shapes follow from lengths and memory; what does not fit is refused with numbers. The file is short, and
says why each number is there. No weight is read.

--json PATH writes {"gin_file", "command": that trains it, "recipe", "hardware", "facts": {name: text}, "layout": or null,
"renderer", "prompt_tokens": most of a prompt, "left_out": prompts that are longer, "response_tokens", "row_tokens",
"decode_rows": of a host, "micro_batch_rows", "tensor", "memory_gib": [[what, while decoding or null, while updating or
null]] of one device, "device_gib"}.
"""

import argparse
import json
from typing import TYPE_CHECKING

from jaxtool.cli import entry

if TYPE_CHECKING:
    from jaxtool.plan.wish import Wish


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        help="a Hugging Face directory, org/name on the hub, a .gguf file, smollm2, or a run",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="NAME[=FILE]|FILE",
        help="problems; of the recipe sft demonstrations: parquet, JSONL, JSON, CSV or a name on the hub",
    )
    parser.add_argument(
        "--recipe", required=True, help="retool_grpo, otc_grpo, torl, search_r1, text_rl or sft"
    )
    parser.add_argument(
        "--hardware", required=True, help="cpu, a100-80g, h100-8, v5e-16, v6e-64 and the like"
    )
    parser.add_argument("--out", required=True, type=entry.writable, help="the gin file to write")
    parser.add_argument(
        "--layout", help="of a FILE that is not recognised, as experiments.data knows layouts"
    )
    parser.add_argument(
        "--judge", help="math, exact_match, f1, choice, unit_tests, in place of the one that fits"
    )
    parser.add_argument(
        "--response_tokens", type=_count, help="of policy and tools together (the recipe's)"
    )
    parser.add_argument(
        "--prompt_tokens", type=_count, help="longer prompts are left out (the longest prompt)"
    )
    parser.add_argument(
        "--steps", type=_count, help="of the run (200; on a CPU 20; sft two passes)"
    )
    parser.add_argument("--problems_per_step", type=_count, help="or demonstrations (the recipe's)")
    parser.add_argument("--samples", type=_count, help="answers to a problem (the recipe's)")
    parser.add_argument(
        "--learning_rate", type=_rate, help="peak (the recipe's, ten times that with --lora)"
    )
    parser.add_argument("--lora", action="store_true", help="train an adapter of rank 16")
    parser.add_argument(
        "--int8", action="store_true", help="the decoder's weights and cache in 8 bits"
    )
    parser.add_argument(
        "--adam8bit", action="store_true", help="moments of the optimizer in 8 bits"
    )
    parser.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="a running search server, for search_r1; may be repeated",
    )
    parser.add_argument(
        "--corpus", default="", help="file of passages for a search server that the run starts"
    )
    entry.add_json_flag(parser, "write what was derived here as well")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number between 0 and 1, as 1e-6")
    return rate


def wish_of(arguments: argparse.Namespace) -> "Wish":
    """The flags as they are derived from."""
    from jaxtool.plan.wish import Wish

    values = dict(vars(arguments))
    del values["out"], values["json"]
    values["search"] = tuple(values["search"])
    return Wish(**values)


def main() -> None:
    arguments = parse()
    from jaxtool.core.files import write_text
    from jaxtool.plan import run_facts, run_text
    from jaxtool.plan.new_run import derive
    from jaxtool.train.run_files import load_run

    run = derive(wish_of(arguments))
    write_text(arguments.out, run_text.gin_text(run, arguments.out))
    load_run([arguments.out])  # the strict loader reads it as experiments.train will
    for name, text in run_facts.facts(run):
        print(f"{name:10}{text}")
    print("", *run_facts.table(run_facts.memory_rows(run)), sep="\n")
    print(f"\n{arguments.out} is written. Check it, then train:")
    command = run_text.command_of(run, str(arguments.out))
    print(f"  {command.partition(' --workdir')[0]} --dry_run\n  {command}")
    if arguments.json is not None:
        write_text(
            arguments.json, json.dumps(run_facts.as_json(run, arguments.out), indent=1) + "\n"
        )


if __name__ == "__main__":
    entry.run(main)
