"""Asks a policy one question and shows its answer as it is written, tools included.

  python -m experiments.sample --policy runs/mine "What is 37 * 24?" --answer 888
  python -m experiments.sample --policy Qwen2.5-1.5B-Instruct --tools off --temperature 0 "What is 37 * 24?"

--policy takes every name of weights (docs/weights.md). A run's policy is asked as the run asks: its prompt, tools, limits.
Other weights get the sandbox's Python, called as their chat template says or in ReTool's tags; with --tools off the same
question without tools. --gin_file names a run file in place of that. The prompt is dim, the policy green, what tools say is
cyan; control tokens are framed, as ⟨|im_end|⟩.

--json PATH writes {"policy", "renderer", "question", "samples": [{"response", "finish_reason", "tokens": {"prompt", "policy",
"tool": how many}, "control_tokens": [spelling], "calls": [{"tool", "arguments", "status", "stdout", "stderr", "wall_ms"}],
"verdict": null or {"is_correct", "answer", "how"}}]}.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from jaxtool.cli import entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtool.core.types import Origin, Problem, Sample
    from jaxtool.train.one_answer import OnTokens
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.rollout_worker import RolloutWorker


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", help="as a problem of the run's task would put it")
    parser.add_argument(
        "--policy",
        required=True,
        help="a run such as runs/mine, a step such as runs/mine@100, a Hugging Face directory, a .gguf file, "
        "smollm2, or org/name on the hub",
    )
    entry.add_gin_flags(parser, "an RL run file whose prompt and tools are used", is_required=False)
    parser.add_argument(
        "--tools", choices=("on", "off"), help="off: a prompt without a tool (as the run does)"
    )
    parser.add_argument("--renderer", help="a template's name or a .toml file, in place of that")
    parser.add_argument("--samples", type=_count, default=1, help="answers (1)")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy (1.0)")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="probability kept of each draw (1.0)"
    )
    parser.add_argument(
        "--response_tokens",
        type=_count,
        help="most tokens of an answer, tools included (the run's, or 1024)",
    )
    parser.add_argument("--answer", help="the reference: judges the answer")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other answers (0)")
    parser.add_argument(
        "--sandbox", action="append", default=[], help="address of a running sandbox server"
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    entry.add_tool_flag(parser)
    entry.add_json_flag(parser, "write the answers here as well")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 1")
    return int(text)


def config_of(arguments: argparse.Namespace, problem: "Problem") -> "RlConfig":
    """The configuration that asks: of --gin_file, of the run that left the policy, or the plainest one."""
    from jaxtool.train import plain_config, run_files, run_tools
    from jaxtool.train.one_answer import Asked

    task = Asked(problem=problem)
    uses_tools = None if arguments.tools is None else arguments.tools == "on"
    wanted = {
        "uses_tools": uses_tools,
        "renderer": arguments.renderer,
        "max_response_tokens": arguments.response_tokens,
        "answers": arguments.samples,
    }
    if arguments.gin_file:
        run = run_files.load_rl_run(arguments.gin_file, arguments.gin_param)
        config = plain_config.config_of_run(run, arguments.policy, task, [problem], **wanted)
    elif arguments.gin_param:
        raise ValueError("--gin_param changes a gin file: name one by --gin_file")
    else:
        config = plain_config.plain_config([arguments.policy], task, [problem], **wanted)
    return run_tools.with_functions(config, arguments.tool, arguments.mcp)


def watch(worker: "RolloutWorker", samples: int) -> "OnTokens":
    """Prints tokens as they come, with a line over each sample where there are several."""
    from rich.console import Console

    from jaxtool.core.types import Origin
    from jaxtool.rollout.token_text import TokenText

    console = Console(highlight=False, soft_wrap=True)
    writers: dict[int, TokenText] = {}

    def on_tokens(sample: int, ids: "Sequence[int]", origin: "Origin") -> None:
        if sample not in writers:
            writers[sample] = TokenText(worker.tokenizer)
            console.print(f"\n[bold]answer {sample + 1}[/] of {samples}" * (samples > 1))
        if sample == 0 or origin is not Origin.PROMPT:  # which is the same for all
            console.print(writers[sample].take(ids, origin), end="")
        sys.stdout.flush()

    return on_tokens


def print_end(number: int, sample: "Sample") -> None:
    """What became of a sample, in a few lines."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    trajectory, verdict = sample.trajectory, sample.verdict
    calls = ", ".join(
        f"{call.tool} {call.result.status} {call.result.wall_ms} ms"
        for call in trajectory.tool_calls
    )
    console.print(
        f"[bold]answer {number}[/]: {trajectory.num_policy_tokens} tokens of the policy, ends with "
        f"{trajectory.finish_reason}; calls: {escape(calls or 'none')}"
    )
    if verdict is not None:
        word = "[green]right[/]" if verdict.is_correct else "[red]wrong[/]"
        said = "no answer" if verdict.answer is None else repr(verdict.answer)
        console.print(f"[bold]verdict[/] {word}: {escape(said)} ({escape(verdict.how)})")


def main() -> None:
    arguments = parse()
    from jaxtool.core.files import write_text
    from jaxtool.core.types import Problem
    from jaxtool.decode.sampling import Sampling
    from jaxtool.train import one_answer

    # Without a reference nothing is judged; any number lets the judge of the run be built.
    problem = Problem(
        problem_id="sample",
        question=arguments.question,
        answer="0" if arguments.answer is None else arguments.answer,
    )
    sampling = Sampling(temperature=arguments.temperature, top_p=arguments.top_p)
    config = config_of(arguments, problem)
    tokenizers = []

    def begin(worker: "RolloutWorker") -> "OnTokens":
        tokenizers.append(worker.tokenizer)
        return watch(worker, arguments.samples)

    try:
        group = one_answer.ask(
            config,
            problem,
            samples=arguments.samples,
            sampling=sampling,
            seed=arguments.seed,
            begin=begin,
            is_judged=arguments.answer is not None,
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
        )
    except KeyboardInterrupt:
        sys.exit("\nstopped")
    print("\n")
    for number, sample in enumerate(group.samples, start=1):
        print_end(number, sample)
    if arguments.json is not None:
        rows = [one_answer.sample_row(sample, tokenizers[0]) for sample in group.samples]
        record = {
            "policy": arguments.policy,
            "renderer": config.renderer,
            "question": arguments.question,
            "samples": rows,
        }
        write_text(arguments.json, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    entry.run(main)
