"""Decoding with exact drafts against decoding without, in turns, on groups of answers to the same problems.

  python -m benchmarks.drafts [--policy smollm2] [--task calculations|arithmetic] [--rows 4 --rows 32]
      [--way exact:2,4 --way any:4 ...] [--new 96] [--rounds 4] [--temperature 1.0] [--dtype float32]
      [--json PATH]

`calculations` asks SmolLM2 for products and sums with the run's two-shot prompt, `arithmetic` asks the study's
policy (--policy DIR of a cold start or a run). --policy random is the worst case: nothing of it can be guessed. Rows are samples of the
same problems, 8 each or 4 with 4 rows. --dtype is what SmolLM2 computes in.
Each round is a step of its own: its rows draw by other keys, and the earlier rounds' answers are there to guess
from, as in a run that asks a problem again. --same_keys asks each round by the same keys: then a row's own answer
is among the earlier ones, and nearly every guess is right. That is the most that drafts can give at these widths,
not what they give. Programs of the form print(sum) are answered at once, others with an error, so that no sandbox
takes part in the time.

  python -m benchmarks.drafts --products [--json PATH]   (what more rows cost, and from where they round otherwise)

A way is rounding:columns (see DraftsConfig). All ways decode the same round before the next round begins; the
ratio is the median over rounds of a way's tokens/s over those without drafts. Programs are compiled ahead, and the
first round counts for nothing. `cpu_ratio` is the same by CPU time of the process, for machines with other work.

Not measured: other devices, waiting for tools, the prompts' prefill.

--json writes {"cases": [{"rows", "dtype", "ways": {name: {"tokens_per_s", "ratio", "cpu_ratio", "passes_per_window",
"tokens_per_pass" (in windows with drafts), "accepted_fraction" (of the guesses), "draft_window_fraction",
"refused_programs", "same_rows_fraction" (answers that are those without drafts to the last token),
"tokens_to_another" (tokens per answer that went on otherwise; null: none did)}}}], "machine"}.
"""

import argparse
import dataclasses
import json
import re
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.draft_products import products
from benchmarks.peers import machine
from jaxtool.cli import entry
from jaxtool.core import rng
from jaxtool.core.calls import Call
from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.arithmetic import ArithmeticTask
from jaxtool.data.calculations import CalculationTask
from jaxtool.data.tokenizer import Tokenizer, written_bytes
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.engine import DecodeEngine, Placement
from jaxtool.decode.sampling import Sampling
from jaxtool.model.config import ModelConfig
from jaxtool.model.sources import GgufFile, RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.renderers.policy_text import Reader
from jaxtool.renderers.renderer import (
    Renderer,
    load_renderer,
    observation_ids,
    stop_token_mask,
)
from jaxtool.train.sources import ArithmeticTokenizer, GgufTokenizer
from jaxtool.train.weights import weights_named

_SUM = re.compile(r"\s*print\(([-+*/ ()\d.]{1,60})\)\s*")
_MOST_CALLS = 3
_RANDOM = "random"
_STUDY = ModelConfig(  # gin_configs/models/tiny_arithmetic.gin
    vocab_size=120,
    d_model=128,
    d_ff=352,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    rope_theta=100.0,
    scans_layers=False,
)
_WAYS = ("exact:2,4", "any:2,4", "same_program:4")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How a case asks."""

    new: int = 96  # tokens of an answer
    rounds: int = 4  # that count
    temperature: float = 1.0
    has_same_keys: bool = False  # in every round
    dtype: str = "float32"  # of SmolLM2's products


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What all ways answer."""

    tokenizer: Tokenizer
    renderer: Renderer
    problems: list[Problem]
    how: Asking


@dataclasses.dataclass(kw_only=True)
class Row:
    ids: list[int]
    limit: int
    reader: Reader
    read: int
    calls: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    seconds: float
    cpu_s: float
    tokens: int  # sampled
    answers: list[list[int]]


def answer(engine: DecodeEngine, asked: Asked, samples: int, number: int) -> Round:
    """One round: every row of the engine from its placement to its end."""
    tokenizer, renderer = asked.tokenizer, asked.renderer
    prompts = [renderer.prompt_ids(tokenizer, problem) for problem in asked.problems]
    prefilled = engine.prefill(prompts)
    rows: dict[int, Row] = {}
    placements = []
    for i, prompt in enumerate(prompts):
        for sample in range(samples):
            cache_row = engine.take_cache_row()
            limit = len(prompt) + asked.how.new
            rows[cache_row] = Row(
                ids=list(prompt),
                limit=limit,
                reader=renderer.reader(is_first=True),
                read=len(prompt),
            )
            step = 0 if asked.how.has_same_keys else number
            placements.append(
                Placement(
                    cache_row=cache_row,
                    prompt=prefilled[i],
                    row_key=rng.row_key(0, step, asked.problems[i].problem_id, sample),
                    max_length=limit,
                    sampling=Sampling(temperature=asked.how.temperature),
                )
            )
    engine.place(placements)
    before = engine.counts.sampled_tokens
    started, cpu = time.perf_counter(), time.process_time()
    while engine.is_any_running:
        log = engine.fetch(engine.dispatch_window())
        outputs = {}
        for cache_row, row in rows.items():
            lines = np.flatnonzero(log.is_sampled[:, cache_row])
            row.ids += log.tokens[lines, cache_row].tolist()
            if lines.size and not engine.is_running(cache_row):
                output = _after_stop(row, asked)
                if output is None:
                    continue
                row.ids += output
                if output:
                    outputs[cache_row] = output
                else:
                    engine.resume(cache_row)
        engine.append(outputs)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    for cache_row in rows:
        engine.release(cache_row)
    return Round(
        seconds=seconds,
        cpu_s=cpu,
        tokens=engine.counts.sampled_tokens - before,
        answers=[row.ids for row in rows.values()],
    )


def _after_stop(row: Row, asked: Asked) -> list[int] | None:
    """What is put behind a row that stopped; [] where it goes on, None where it ends."""
    tokenizer, renderer = asked.tokenizer, asked.renderer
    row.reader.feed(b"".join(written_bytes(tokenizer, i) for i in row.ids[row.read :]))
    row.read = len(row.ids)
    has_ended = row.ids[-1] in tokenizer.eos_ids
    stop = row.reader.next_stop(is_end=has_ended and renderer.ends_by_turn)
    if len(row.ids) >= row.limit or (stop is not None and stop.kind == "answer"):
        return None
    if stop is None:
        return None if has_ended else []
    row.calls += 1
    if row.calls > _MOST_CALLS:
        return None
    code = stop.call.arguments.get("code") if isinstance(stop.call, Call) else None
    output = observation_ids(tokenizer, _result(code), renderer)
    if len(row.ids) + len(output) + 1 >= row.limit:
        return None
    row.reader, row.read = renderer.reader(), len(row.ids) + len(output)
    return output


def _result(code: object) -> ToolResult:
    """Of a program that prints a sum of numbers; any other one is a name that nobody knows."""
    found = _SUM.fullmatch(code) if isinstance(code, str) else None
    if found is not None and "**" not in found[1]:
        try:
            return ToolResult(
                status=ToolStatus.OK, stdout=f"{eval(found[1], {})}\n"
            )  # digits, signs
        except (SyntaxError, ZeroDivisionError, TypeError):
            pass
    return ToolResult(status=ToolStatus.ERROR, stderr="NameError: name is not defined\n")


def way_of(text: str) -> DraftsConfig:
    """`exact:2,4` is DraftsConfig(rounding="exact", columns=(2, 4)).

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    rounding, _, columns = text.partition(":")
    try:
        return DraftsConfig(
            rounding=rounding,  # pyright: ignore[reportArgumentType]  # checked there
            columns=tuple(int(c) for c in columns.split(",")),
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def measure(
    policy: str,
    task: str,
    rows: int,
    ways: dict[str, DraftsConfig | None],
    how: Asking,
) -> dict[str, Any]:
    """One case: every way at so many rows."""
    sharding = single_device()
    source = RandomInit(config=_STUDY) if policy == _RANDOM else weights_named(policy)
    if isinstance(source, GgufFile):
        source = dataclasses.replace(source, compute_dtype=how.dtype)
    model, params = source.load(sharding, 0)
    is_small = task == "arithmetic"
    samples = min(8, max(2, rows))
    of = ArithmeticTask() if is_small else CalculationTask()
    renderer = load_renderer("arithmetic_tools" if is_small else "two_shot_code")
    tokenizer = ArithmeticTokenizer().load() if is_small else GgufTokenizer().load()
    asked = Asked(
        tokenizer=tokenizer,
        renderer=renderer,
        problems=list(of.problems("train", max(1, rows // samples), 0)),
        how=how,
    )
    longest = max(len(renderer.prompt_ids(tokenizer, problem)) for problem in asked.problems)
    positions = -(-(longest + how.new) // 32) * 32
    engines = {}
    for name, drafts in ways.items():
        config = EngineConfig(
            decode_rows=rows,
            max_tokens=positions,
            window_steps=8 if is_small else 16,
            min_view=positions,
            prefill_rows=4,
            min_prompt_bucket=64,
            drafts=drafts,
        )
        engines[name] = DecodeEngine(
            model=model,
            config=config,
            sharding=sharding,
            is_stop=np.asarray(stop_token_mask(tokenizer, renderer.stop_tags)),
        )
        engines[name].load(params)
        engines[name].compile([Sampling(temperature=how.temperature)], longest_prompt=longest)
    del params
    seen: dict[str, list[Round]] = {name: [] for name in ways}
    for number in range(how.rounds + 1):
        for name, engine in engines.items():
            done = answer(engine, asked, samples, number)
            if number:
                seen[name].append(done)
    jax.clear_caches()
    return {
        "policy": policy if policy in ("smollm2", _RANDOM) else "of the study",
        "rows": rows,
        "dtype": model.compute_dtype,
        "samples": samples,
        "same_keys": how.has_same_keys,
        "temperature": how.temperature,
        "ways": {name: figures(engines[name], seen[name], seen["off"]) for name in ways},
    }


def figures(engine: DecodeEngine, seen: list[Round], off: list[Round]) -> dict[str, Any]:
    """Of one way; see the head of this file."""
    counts = engine.drafting.counts
    pairs = list(zip(seen, off, strict=True))
    answers = [
        pair for one, other in pairs for pair in zip(one.answers, other.answers, strict=True)
    ]
    same = sum(one == other for one, other in answers)
    return {
        "tokens_per_s": statistics.median(r.tokens / r.seconds for r in seen),
        "ratio": statistics.median(
            (r.tokens / r.seconds) / (o.tokens / o.seconds) for r, o in pairs
        ),
        "cpu_ratio": statistics.median(
            (r.tokens / r.cpu_s) / (o.tokens / o.cpu_s) for r, o in pairs
        ),
        "tokens_per_pass": counts.tokens / counts.passes if counts.passes else None,
        "accepted_fraction": counts.accepted / counts.guessed if counts.guessed else None,
        "draft_window_fraction": counts.windows / engine.counts.windows,
        "refused_programs": counts.refused_programs,
        "same_rows_fraction": same / len(answers),
        "tokens_to_another": sum(r.tokens for r in seen) / (len(answers) - same)
        if same < len(answers)
        else None,
    }


def show(case: dict[str, Any]) -> None:
    print(f"{case['rows']} rows, {case['dtype']}")
    for name, of in case["ways"].items():
        shown = "  ".join(f"{key} {value:.3g}" for key, value in of.items() if value is not None)
        print(f"  {name:16} {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--policy",
        type=entry.weights_name,
        default="smollm2",
        metavar="NAME",
        help="random: of the study's shape, for --task arithmetic",
    )
    parser.add_argument("--task", choices=("calculations", "arithmetic"), default="calculations")
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--way", action="append", help="rounding:columns, may be repeated")
    parser.add_argument("--new", type=int, default=96, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--same_keys", action="store_true", help="every round draws alike")
    parser.add_argument(
        "--products", action="store_true", help="only: matrix products of more rows, time and bits"
    )
    entry.add_json_flag(parser, "write all figures here")
    arguments = parser.parse_args()
    names = arguments.way or _WAYS
    ways: dict[str, DraftsConfig | None] = {"off": None} | {name: way_of(name) for name in names}
    cases = []
    if arguments.products:
        found = [row for dtype in ("float32", "bfloat16") for row in products(dtype)]
        if arguments.json:
            arguments.json.write_text(json.dumps({"products": found, "machine": machine({})}))
        return
    how = Asking(
        new=arguments.new,
        rounds=arguments.rounds,
        temperature=arguments.temperature,
        has_same_keys=arguments.same_keys,
        dtype=arguments.dtype,
    )
    for rows in arguments.rows or (4, 32):
        cases.append(measure(str(arguments.policy), arguments.task, rows, ways, how))
        show(cases[-1])
    record = {"cases": cases, "machine": machine({})}
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
