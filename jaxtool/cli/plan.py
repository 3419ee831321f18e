"""Plans an RL run or a cold start on a TPU slice, on this CPU: does it fit, how long is a step, what to change.

  pip install 'libtpu>=0.0.50' flatbuffers
  python -m experiments.plan --gin_file gin_configs/runs/torl_1_5b_v5e_8.gin --topology v5e:2x4

Compiles every program of the run with the real TPU compiler for the run's shapes and shardings. No
weight is read and nothing is run, so times are predictions; the assumptions are printed.

--json PATH writes {"topology", "devices", "gin_file", "overlays": [further files], "fits", "hbm_used_gib": the
fullest moment of a device, "hbm_limit_gib", "predicted_step_s" (null where a program does not compile),
"decode_tokens_per_s_per_chip": response tokens over the seconds of decoding, "step_tokens_per_s_per_chip": prompt and
response tokens over the step (null as before, and decoding in a cold start),
"seconds": {part of the step: s}, "resident_gib": {what stays in memory: GiB}, "assumptions", "advice": gin lines
that make it fit, or may make it quicker, "versions", "programs": [{"name", "shape", "arguments_gib",
"temporaries_gib", "outputs_gib", "other_resident_gib": resident arrays that are no argument of it, "hbm_gib": the
sum of these, "tflop", "roofline_ms", "products_ms", "compiler_ms", "kernels_ms", "kernels": {name: {"calls",
"active_steps" and "skipped_steps" of a call, "active_cycles" and "skipped_cycles" of a step (null: not known),
"read_gib", "ms"}}, "collectives_ms", "waits_ms": of these, in which the core does nothing else, "collectives": {kind:
{"count", "gib"}},
"runs_per_step", "compile_s", "error"}], "paged_rows": with pages {"windows", "rows", "most_rows", "live_tokens", "moved_rows",
"moved_pages"} of a host with the mean of tokens, else null}; all figures of programs per device.
"""

import argparse
import os

from jaxtool.cli import entry


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_gin_flags(parser, "a run file")
    parser.add_argument("--topology", required=True, help="v5p:4x4x8, v6e:8x8, v5e-8, ...")
    parser.add_argument("--response_tokens", type=float, help="mean; default: half the limit")
    parser.add_argument("--prompt_tokens", type=float, help="mean; default: 256")
    parser.add_argument("--tool_calls", type=float, help="mean; default: half the limit")
    parser.add_argument(
        "--keep",
        type=entry.writable_folder,
        metavar="DIR",
        help="keep what the compiler says here; the next plan compiles only programs that have changed",
    )
    entry.add_json_flag(parser, "write the figures here as well")
    parser.add_argument("--html", type=entry.local_path, help="write a page here as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    # Nothing runs here: a TPU or GPU that is in use stays alone.
    os.environ["JAX_PLATFORMS"] = "cpu"
    # What libtpu compiled without a TPU cannot be read back: each entry would only be warned about.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    from jaxtool.config import loader
    from jaxtool.plan import plan, step
    from jaxtool.plan import report as reports
    from jaxtool.train import run_files

    config = run_files.load_run(arguments.gin_file, arguments.gin_param)
    assumed = step.default_assumptions(
        config,
        response_tokens=arguments.response_tokens,
        prompt_tokens=arguments.prompt_tokens,
        tool_calls=arguments.tool_calls,
    )

    def tell(program: plan.ProgramPlan) -> None:
        state = program.error or "compiled"
        print(f"{program.name}: {state} in {program.compile_s:.0f} s", flush=True)

    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    found = plan.plan_run(config, arguments.topology, assumed, report=tell, kept=arguments.keep)
    reports.print_plan(found)
    if arguments.json:
        reports.write_json(arguments.json, found, *arguments.gin_file)
    if arguments.html:
        text = loader.operative_config(config)
        print(f"page {reports.write_html(arguments.html, found, arguments.gin_file[0], text)}")


if __name__ == "__main__":
    entry.run(main)
