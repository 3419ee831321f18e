"""Asks rows of a suite: each has an evaluation of its own in WORKDIR/TABLE/ROW, under the condition that its table says.

Everything is looked at before any weight is read: names, files of test sets, run files, prompts. Rows may be asked one
after the other, in several commands; those that are there already are in the tables too. Not covered: what a row is
(`paper_suites`), decoding and resuming (`evaluating`), tables (`suite_tables`).
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.data.layouts import PRESETS
from jaxtool.data.problems import EvaluationSet, EvaluationSets
from jaxtool.decode.sampling import Sampling
from jaxtool.model.sources import HfDirectory
from jaxtool.rollout.answer_table import table_of
from jaxtool.rundir.answer_files import (
    GREEDY,
    SAMPLED,
    SETTINGS,
    EvaluationSettings,
    iterate_answers,
    missing_chunks,
    read_settings,
)
from jaxtool.rundir.run_start import Launch
from jaxtool.study.evaluating import run_evaluation
from jaxtool.study.evaluation_config import evaluated_config, run_file
from jaxtool.study.evaluation_plan import Asked, EvaluationPlan, plan_evaluation
from jaxtool.study.paper_suites import PaperSuite, Row, SuiteTable
from jaxtool.study.suite_tables import RowResult, row_result
from jaxtool.train import run_files, run_tools
from jaxtool.train.hub_model import HubModel
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sources import HfTokenizerDirectory, HubTokenizer
from jaxtool.train.weights import weights_named

RECORD = "suite.json"  # in the work directory: which suite it is of


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteAsked:
    """What the command line says of a suite's evaluation."""

    policies: Mapping[str, str]  # names of weights by names of rows
    data: tuple[str, ...] = ()  # NAME=FILE, of sets or of layouts
    problems: int | None = None  # of each set; None: all
    seed: int = 0
    gin_files: tuple[str, ...] = ()  # in place of what the suite or a run says
    gin_params: tuple[str, ...] = ()
    response_tokens: int | None = None  # of an answer; None: the run's
    tools: tuple[str, ...] = ()  # functions that a row with tools may call as well
    mcp: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRow:
    """A row before its first token."""

    table: SuiteTable
    row: Row
    plan: EvaluationPlan
    files: tuple[str, ...]  # the gin files that it is asked by


def plan_rows(suite: PaperSuite, asked: SuiteAsked) -> list[PlannedRow]:
    """Every row that has a policy, in the order of the tables; nothing of a weight is read.

    Raises:
      ValueError, OSError: a name is no row's, a test set has no file, a run file is wrong, ...; one line.
    """
    suite.check_names(asked.policies)
    chosen = [(table, row) for table, row in suite.rows() if row.name in asked.policies]
    files = files_of_sets(suite, asked.data, {one for table, _ in chosen for one in table.sets})
    sets_of = functools.cache(functools.partial(_sets, suite, tuple(files.items())))
    return [_planned(suite, table, row, asked, sets_of(table.sets)) for table, row in chosen]


def run_rows(
    suite: PaperSuite,
    planned: Sequence[PlannedRow],
    workdir: Path,
    *,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
) -> None:
    """Answers what is missing of each row.

    Raises:
      ValueError: the directory is of another suite; otherwise as `run_evaluation`.
    """
    claim_workdir(suite, workdir)
    for number, one in enumerate(planned, 1):
        print(f"row {number} of {len(planned)}: {one.row.name}, {one.table.name}", flush=True)
        run_evaluation(
            one.plan,
            row_dir(workdir, one.table, one.row),
            launch=Launch(files=one.files),
            sandbox_addresses=sandbox_addresses,
            search_addresses=search_addresses,
        )


def row_dir(workdir: Path, table: SuiteTable, row: Row) -> Path:
    """Where the answers of a row are."""
    return workdir / table.name / row.name


def claim_workdir(suite: PaperSuite, workdir: Path) -> None:
    """Makes the work directory that of a suite.

    Raises:
      ValueError: it is another's, or holds an evaluation that is of no suite.
    """
    check_workdir(suite, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    write_text(workdir / RECORD, json.dumps(_record(suite), indent=1))


def check_workdir(suite: PaperSuite, workdir: Path) -> None:
    """Raises as `claim_workdir`."""
    if (workdir / SETTINGS).is_file():
        raise ValueError(
            f"{workdir} holds an evaluation that is no suite's: choose another --workdir for the suite {suite.name}"
        )
    file = workdir / RECORD
    if not file.is_file():
        return
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found != _record(suite):
        name = found.get("suite") if isinstance(found, dict) else "that cannot be read"
        title = found.get("title") if isinstance(found, dict) else ""
        raise ValueError(
            f"{workdir} holds records of another suite, {name} ({title}): choose another --workdir for the suite "
            f"{suite.name} ({suite.title})"
        )


def check_is_no_suite(workdir: Path) -> None:
    """Raises ValueError if a directory for one evaluation holds those of a suite."""
    if (workdir / RECORD).is_file():
        raise ValueError(
            f"{workdir} holds the rows of a suite: give --suite as well, name one of its rows as {workdir}/TABLE/ROW, "
            "or choose another --workdir"
        )


def results_of_rows(suite: PaperSuite, workdir: Path) -> dict[tuple[str, str], RowResult]:
    """Our figures of the rows whose answers are all there, by (table, row).

    Raises:
      ValueError: a row's answers were sampled otherwise than the suite says; one line.
    """
    found: dict[tuple[str, str], RowResult] = {}
    for table, row in suite.rows():
        folder = row_dir(workdir, table, row)
        if not (folder / SETTINGS).is_file():
            continue
        settings = read_settings(folder)
        [condition] = _check_condition(table, row, settings, folder).conditions
        if missing_chunks(folder, settings, row.name, condition):
            continue
        parts = iterate_answers(folder, row.name, condition, has_texts=False)
        answers = table_of(record for part in parts for record in part)
        found[table.name, row.name] = row_result(
            table, answers, max_lost_fraction=settings.max_lost_fraction, seed=settings.seed
        )
    return found


def check_rests_on_enough(results: Mapping[tuple[str, str], RowResult]) -> None:
    """Raises ValueError if a set of a row lost too many answers to have figures."""
    refused = [
        f"{row}, {table}, {one}"
        for (table, row), result in results.items()
        for one in result.refused
    ]
    if refused:
        raise ValueError(
            f"no figures, too many answers were lost to the infrastructure ({'; '.join(refused)}): look at the log "
            "of its servers and give the same command again"
        )


def _planned(
    suite: PaperSuite, table: SuiteTable, row: Row, asked: SuiteAsked, sets: EvaluationSets
) -> PlannedRow:
    weights = asked.policies[row.name]
    try:
        config, files = _config(table, row, weights, asked)
        if row.tools:
            config = run_tools.with_functions(config, asked.tools, asked.mcp)
        is_greedy = table.temperature == 0
        plan = plan_evaluation(
            dataclasses.replace(config, task=sets),
            {row.name: weights},
            Asked(
                data=", ".join(table.sets),
                problems=asked.problems,
                seed=asked.seed,
                samples=table.samples,
                samplings=(GREEDY if is_greedy else SAMPLED,),
                tools=("on" if row.tools else "off",),
                calls=None if row.calls is None else (row.calls,),
                suite=suite.name,
            ),
        )
    except (ValueError, OSError) as error:
        raise ValueError(f"row {row.name} of {suite.name}, {table.name}: {error}") from error
    return PlannedRow(table=table, row=row, plan=plan, files=files)


def _config(
    table: SuiteTable, row: Row, weights: str, asked: SuiteAsked
) -> tuple[RlConfig, tuple[str, ...]]:
    """The run that a row is asked by: of the command's files, of the weights' own run, or of the suite's files."""
    own = run_file(weights)
    is_rl_run = own is not None and run_files.run_target(own) is RlConfig
    files, params = asked.gin_files, asked.gin_params
    if not files and not is_rl_run:
        files, params = table.gin_files_of(row), (*table.gin_params_of(row), *params)
    config, used = evaluated_config(
        *(files, params, {row.name: weights}, ()),
        problems=asked.problems,
        seed=asked.seed,
        response_tokens=asked.response_tokens,
    )
    if not asked.gin_files:
        config = _with_own_tokenizer(config, weights)
    if table.temperature:
        # Nothing is learned here, so that no KL stands beside top-p.
        grpo = dataclasses.replace(config.grpo, kl_coef=0.0, reward_kl_coef=0.0)
        sampling = Sampling(temperature=table.temperature, top_p=table.top_p)
        config = dataclasses.replace(config, grpo=grpo, sampling=sampling)
    return config, used


def _with_own_tokenizer(config: RlConfig, weights: str) -> RlConfig:
    """With the tokenizer of the weights, where these are a Hugging Face model."""
    source, now = weights_named(weights), config.tokenizer
    variables = now.template_variables if isinstance(now, HfTokenizerDirectory) else ()
    if isinstance(source, HfDirectory):
        own = HfTokenizerDirectory(path=source.path, template_variables=variables)
    elif isinstance(source, HubModel):
        own = HubTokenizer(
            repository=source.repository, revision=source.revision, template_variables=variables
        )
    else:
        return config
    return dataclasses.replace(config, tokenizer=own)


def files_of_sets(suite: PaperSuite, data: Sequence[str], wanted: set[str]) -> dict[str, str]:
    """The file or hub name of each set that is asked."""
    layouts = {one.layout for one in suite.sets.values()}
    given: dict[str, str] = {}
    for text in data:
        name, _, file = text.partition("=")
        if name not in suite.sets and name not in layouts:
            raise ValueError(
                f"--data {text}: the suite {suite.name} has no set {name!r}: its sets are {', '.join(suite.sets)}"
            )
        if not file:
            raise ValueError(f"--data {text}: name the file of the set, as --data {name}=FILE")
        given[name] = file
    files: dict[str, str] = {}
    for name in (one for one in suite.sets if one in wanted):
        layout = suite.sets[name].layout
        file = given.get(name) or given.get(layout) or PRESETS[layout].test
        if file is None:
            raise ValueError(
                f"the suite {suite.name} asks the set {name}, and it is not known where that is published: name its "
                f"file, as --data {name}=FILE"
            )
        files[name] = file
    return files


def _sets(
    suite: PaperSuite, files: tuple[tuple[str, str], ...], names: tuple[str, ...]
) -> EvaluationSets:
    """The sets of a table, read; one that cannot be is named with the flag that provides it."""
    found = dict(files)
    whole = EvaluationSets(sets=tuple(_set(suite, name, found[name]) for name in names))
    try:
        _ = whole.found
    except (ValueError, OSError):
        for name, one in zip(names, whole.sets, strict=True):
            _check_set(suite, name, one)
        raise
    return whole


def _check_set(suite: PaperSuite, name: str, one: EvaluationSet) -> None:
    try:
        _ = EvaluationSets(sets=(one,)).found
    except (ValueError, OSError) as error:
        raise ValueError(
            f"the set {name} of the suite {suite.name}: {error} (--data {name}=FILE names another file)"
        ) from error


def _set(suite: PaperSuite, name: str, file: str) -> EvaluationSet:
    one = suite.sets[name]
    return EvaluationSet(name=name, path=file, layout=one.layout, level=one.level)


def _check_condition(
    table: SuiteTable, row: Row, settings: EvaluationSettings, folder: Path
) -> EvaluationSettings:
    """Raises ValueError where answers were sampled otherwise than the suite says."""
    is_greedy = table.temperature == 0
    [condition, *more] = settings.conditions
    wanted = {
        "one condition": not more,
        f"policy {row.name}": list(settings.policies) == [row.name],
        f"samples = {table.samples}": settings.samples == table.samples,
        f"sampling {table.sampling}": condition.sampling == (GREEDY if is_greedy else SAMPLED)
        and (
            is_greedy or (settings.temperature, settings.top_p) == (table.temperature, table.top_p)
        ),
        f"tools = {row.tools}": condition.has_tools == row.tools,
        f"calls = {row.calls}": row.calls is None or condition.max_tool_calls == row.calls,
    }
    if other := [text for text, holds in wanted.items() if not holds]:
        raise ValueError(
            f"{folder} holds answers that were asked otherwise than the suite says now ({other[0]}): delete it, or "
            "choose another --workdir"
        )
    return settings


def _record(suite: PaperSuite) -> dict[str, str]:
    return {"suite": suite.name, "title": suite.title, "paper": suite.paper}
