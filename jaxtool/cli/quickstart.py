"""From random weights to OTC-GRPO on a laptop: pretraining, cold start, GRPO and OTC-GRPO, then a table.

  python -m experiments.quickstart [--tool python|search|two_tools] [--workdir runs/quickstart] [--seed 0]
      [--problems 400] [--steps 20] [--gin_param 'Schedule.samples = 4'] [--log wandb:tools] [--latex DIR]

`--tool python` is arithmetic with the sandbox; `search` is facts that the policy knows by heart or must look up, with
the search server; `two_tools` has both servers. `--steps` shortens every stage: a look at the machinery, whose policies are worth nothing yet. Ctrl-C is safe: the same command resumes from the last checkpoint and ends in the same numbers.
`--log` gives each stage a run of its own in a tracker, and the whole one with its figures and its page.
It ends with what OTC-GRPO changes against GRPO, against the cold start, and against the calls that the questions need.
That is one draw: another seed, processor or version ends elsewhere (docs/experiments.md, docs/reproducibility.md).

WORKDIR/results.json (and --json PATH) hold {"variants": {"cold_start"|"grpo"|"otc_grpo" (with two tools "cheap_search"|"cheap_python" too): {"greedy"|
"sampled": {"accuracy", "accuracy_stderr", "tool_calls", "tool_calls_stderr", "tool_productivity" (null
without calls), "by_tool": {tool: see experiments.evaluate}, "problems", "answers", "lost", "lost_to" {who: how many}, "levels": {level: the same}}}},
"otc_against_grpo": {"greedy"|"sampled": {"questions", "questions_left_out", "calls_cut", "calls_difference",
"calls_difference_stderr", "accuracy_difference_points", "accuracy_difference_points_stderr", "productivity_gain",
"by_tool": {tool: those about calls}}}, "otc_against_cold_start" and "grpo_against_cold_start": the same, "call_use":
{variant: {"greedy"|"sampled": {level or "all": {"answers", "needed", "over_use", "under_use"}}}}, "calls_needed" an
answer, "tool", "seed"}. WORKDIR/report.html shows curves and trajectories.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtool.cli import entry
from jaxtool.config.places import CONFIGS

if TYPE_CHECKING:  # imported where they are used: the flags need no jax
    from jaxtool.report.page import Report
    from jaxtool.rundir.run_start import Launch
    from jaxtool.rundir.trackers.spec import TrackerSpec
    from jaxtool.study.closing import Word
    from jaxtool.study.comparison_tables import Comparison
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.sft_loop import SftRunConfig

STAGES = ("pretrain", "cold_start", "grpo", "otc_grpo")
TEST_PROBLEMS = 400


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """What a quickstart is about."""

    name: str  # of its run files and its directory
    uses_sandbox: bool
    uses_search: bool
    section: str  # of docs/experiments.md
    priced: tuple[str, ...] = ()  # further stages: OTC-GRPO with other prices of the tools

    @property
    def stages(self) -> tuple[str, ...]:
        return (*STAGES, *self.priced)

    @property
    def variants(self) -> tuple[str, ...]:
        """Stages whose policies are tested."""
        return self.stages[1:]

    def parent(self, stage: str) -> str | None:
        """The stage that a stage starts from."""
        before = {"pretrain": None, "cold_start": "pretrain"}
        return before.get(stage, "cold_start")

    def file(self, stage: str) -> Path:
        return CONFIGS / "runs" / f"{self.name}_{stage}.gin"

    def word(self) -> Word:
        from jaxtool.study.closing import CALL, Word

        return CALL if self.uses_sandbox else Word(one="search", many="searches")

    def one_draw(self) -> str:
        return (
            "This is one seed on one processor, and another ends elsewhere: docs/experiments.md, "
            f"'{self.section}'."
        )


KINDS = {
    "python": Kind(
        name="quickstart",
        uses_sandbox=True,
        uses_search=False,
        section="The quickstart over seeds",
    ),
    "search": Kind(
        name="quickstart_search",
        uses_sandbox=False,
        uses_search=True,
        section="The search quickstart",
    ),
    "two_tools": Kind(
        name="quickstart_two_tools",
        uses_sandbox=True,
        uses_search=True,
        section="Two tools and their prices",
        priced=("cheap_search", "cheap_python"),
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Servers:
    """Addresses of the servers of all stages."""

    sandbox: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument(
        "--tool", choices=tuple(KINDS), default="python", help="what the policy may call"
    )
    flags.add_argument(
        "--workdir", type=entry.local_path, help="default: runs/quickstart, or with the tool"
    )
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--steps", type=int, help="of every stage, in place of its own")
    flags.add_argument(
        "--gin_param",
        action="append",
        default=[],
        help="a binding of the two stages with rollouts and of the test, may be repeated",
    )
    flags.add_argument("--problems", type=int, default=TEST_PROBLEMS, help="questions of the test")
    entry.add_log_flag(flags)
    entry.add_figure_flags(flags)
    entry.add_json_flag(flags, "write results.json here as well")
    return flags


def main() -> None:
    arguments = parser().parse_args()
    kind = KINDS[arguments.tool]
    arguments.workdir = arguments.workdir or Path("runs") / kind.name
    from jaxtool.core.files import write_text
    from jaxtool.report.page import write_report
    from jaxtool.rundir.trackers.opening import log_outcome
    from jaxtool.study import call_use, closing, compare, comparison_tables, paired, tracked
    from jaxtool.train.rl_config import RlConfig

    started = time.monotonic()
    trackers = entry.trackers_of(arguments)
    runs = _configs(arguments, kind, trackers)
    configs = {stage: config for stage, (config, _) in runs.items()}
    tested = configs["otc_grpo"]
    assert isinstance(tested, RlConfig)
    with _servers(kind, arguments.workdir) as servers:
        policies = _train(arguments, kind, runs, servers)
        print(f"test: {arguments.problems} questions that no stage has seen", flush=True)
        comparison = compare.compare(
            tested,
            {variant: policies[variant] for variant in kind.variants},
            problems=arguments.problems,
            seed=arguments.seed,
            sandbox_addresses=servers.sandbox,
            search_addresses=servers.search,
        )
    results = (
        comparison.as_json()
        | {
            closing.key(new, old): {
                way: paired.paired(comparison.variants[new][way], comparison.variants[old][way])
                for way in compare.SAMPLINGS
            }
            for new, old in closing.AGAINST
        }
        | {
            "call_use": call_use.use_of(comparison),
            "calls_needed": closing.needed(comparison.variants["otc_grpo"]["greedy"].as_json()),
            "tool": arguments.tool,
            "seed": arguments.seed,
        }
    )
    text = json.dumps(results, indent=1)
    for path in filter(None, (arguments.workdir / "results.json", arguments.json)):
        write_text(path, text)
    comparison_tables.print_tables(comparison)
    comparison_tables.check_rests_on_enough(comparison)
    call_use.print_use(comparison, kind.word().many)
    if kind.priced:
        print("\n".join(closing.which_tool(results, "square")))
    print("\n".join(closing.statements(results, kind.word(), kind.one_draw())))
    report = _report(arguments, configs, comparison, results)
    page = write_report(arguments.workdir / "report.html", report)
    entry.write_figures(arguments, report)
    log_outcome(trackers, arguments.workdir, page, tracked.of_evaluations(results["variants"]))
    print(f"report {page}\n{time.monotonic() - started:.0f} s in this process")


def _configs(
    arguments: argparse.Namespace, kind: Kind, trackers: tuple[TrackerSpec, ...]
) -> dict[str, tuple[SftRunConfig | RlConfig, Launch]]:
    """The run of each stage; everything that is wrong with the flags is found here."""
    from jaxtool.rundir.trackers.opening import spec_of_part
    from jaxtool.study.fewer_steps import steps_bindings
    from jaxtool.train.rl_config import RlConfig
    from jaxtool.train.run_files import launched_run, run_target

    configs = {}
    for stage in kind.stages:
        file = kind.file(stage)
        params = list(arguments.gin_param) if run_target(file) is RlConfig else []
        if arguments.steps is not None:
            params += steps_bindings([file], params, arguments.steps)
        own = tuple(spec_of_part(spec, arguments.workdir, stage) for spec in trackers)
        configs[stage] = launched_run([file], params, own)
    return configs


@contextlib.contextmanager
def _servers(kind: Kind, workdir: Path) -> Iterator[Servers]:
    """Starts what the stages call, once for all of them."""
    from jaxtool.data import facts
    from jaxtool.tools.local_server import run_local_search, start_local_server

    with contextlib.ExitStack() as stack:
        sandbox, search = (), ()
        if kind.uses_sandbox:
            sandbox = (stack.enter_context(start_local_server()),)
        if kind.uses_search:
            workdir.mkdir(parents=True, exist_ok=True)
            corpus = workdir / "facts.jsonl"
            facts.write_corpus(corpus)
            flags = ("--corpus", str(corpus))
            server = stack.enter_context(run_local_search(flags=flags, start_timeout_s=120.0))
            search = (server.address,)
        yield Servers(sandbox=sandbox, search=search)


def _train(
    arguments: argparse.Namespace,
    kind: Kind,
    runs: dict[str, tuple[SftRunConfig | RlConfig, Launch]],
    servers: Servers,
) -> dict[str, Path]:
    """Runs the stages; returns the directory of each one's policy."""
    from jaxtool.train import rl_loop, sft_loop

    policies: dict[str, Path] = {}
    for number, stage in enumerate(kind.stages, start=1):
        print(f"[{number}/{len(kind.stages)}] {stage}", flush=True)
        (config, launched), parent = runs[stage], kind.parent(stage)
        flags = {
            "workdir": arguments.workdir / stage,
            "seed": arguments.seed,
            "init_from": policies[parent] if parent else None,
            "launch": launched,
        }
        if isinstance(config, sft_loop.SftRunConfig):
            policies[stage] = sft_loop.train(config, **flags)
        else:
            policies[stage] = rl_loop.train(
                config,
                sandbox_addresses=servers.sandbox,
                search_addresses=servers.search,
                **flags,
            )
    return policies


def _report(
    arguments: argparse.Namespace,
    configs: dict[str, SftRunConfig | RlConfig],
    comparison: Comparison,
    results: dict[str, Any],
) -> Report:
    """The page: tables of the test, accuracy over calls, training curves, trajectories."""
    from jaxtool.config import loader
    from jaxtool.report import page
    from jaxtool.rundir.metrics import read_metrics
    from jaxtool.rundir.trajectory_log import read_trajectories
    from jaxtool.study import closing, comparison_tables

    kind = KINDS[arguments.tool]
    workdirs = {stage: arguments.workdir / stage for stage in kind.stages}
    headlines = []
    for old in ("grpo", "cold_start"):
        for way in closing.SAMPLINGS:
            value, note = closing.change(results[closing.key("otc_grpo", old)][way], kind.word())
            label = f"OTC-GRPO against {closing.NAMES[old]}, {way}"
            headlines.append(page.Headline(label=label, value=value, note=note))
    return comparison_tables.comparison_report(
        comparison,
        title="jaxtool quickstart",
        subtitle=f"seed {arguments.seed}, {arguments.problems} test questions, which need "
        f"{results['calls_needed']:.2f} {kind.word().many} each. {kind.one_draw()}",
        headlines=headlines,
        metrics={stage: read_metrics(workdirs[stage] / "metrics.jsonl") for stage in kind.stages},
        views=[
            view
            for stage in kind.stages[2:]
            for view in read_trajectories(workdirs[stage] / "trajectories.jsonl")
        ],
        config="\n\n".join(
            f"# {stage}\n{loader.operative_config(config)}" for stage, config in configs.items()
        ),
    )


if __name__ == "__main__":
    entry.run(main)
