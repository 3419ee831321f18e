"""Reads sweeps: a TOML file with a run, what varies, and seeds; docs/sweeps.md explains the keys.

  run = ["gin_configs/runs/quickstart_grpo.gin"]
  seeds = [0, 1, 2]
  [grid]
  Schedule.samples = [4, 8]                      # every combination of the lists
  GroupAdvantage.normalizes_by_std = [true, false]

are four points, `samples=4,normalizes_by_std=true` first. `[points]` has named lists of bindings, which stand beside the
grid's points and are not combined with them. Numbers, true and false are values. A string is gin text, as behind `=` in
--gin_param: "@otc.OtcReward()", "%STEPS", "None", and "'cosine'" for a gin string.

Not covered: whether a binding fits the run (`sweep.composed`).
"""

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.metric_table import METRICS, meaning_of
from jaxtool.rundir.run_listing import LAST_METRICS
from jaxtool.study.job_pool import JOBS
from jaxtool.study.toml_files import TomlFile, meant

MOST_JOBS = 64  # without --yes

ALONE = "run"  # the point of a sweep over seeds alone
_LONGEST_LABEL = 40  # characters of a value in a point's name
_LONGEST_NAME = 160  # file systems take 255 bytes
_NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """One binding of a point."""

    param: str  # "Schedule.samples = 8", as --gin_param takes it
    line: int  # of the sweep's file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Bindings over the run; each seed makes a job of it."""

    name: str  # of its directory
    line: int
    bindings: tuple[Bound, ...]

    @property
    def params(self) -> tuple[str, ...]:
        return tuple(bound.param for bound in self.bindings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a file says."""

    file: str
    run: tuple[str, ...]  # gin files: the run, then overlays
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    steps: int | None  # of every job; None: as the run says
    init_from: str | None  # name of weights; "{seed}" in it is the job's seed
    metrics: tuple[str, ...]  # columns of the table
    lines: Mapping[str, int]  # of run, steps and init_from in the file

    def start_of(self, seed: int) -> str | None:
        """The weights that the jobs of a seed start from; None: those of the run."""
        return None if self.init_from is None else self.init_from.replace("{seed}", str(seed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Values:
    """The file's keys."""

    run: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: dict[str, Any] = dataclasses.field(default_factory=dict)
    points: dict[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = None
    init_from: str | None = None
    metrics: tuple[str, ...] = tuple(LAST_METRICS.values())


def load_sweep(path: str | Path, most_jobs: int | None = MOST_JOBS) -> Sweep:
    """A sweep from its file.

    Args:
      most_jobs: points times seeds that are taken; None: as many as there are.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: one line with file, line, value and remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no sweep at {path}: name a TOML file, see docs/sweeps.md"
        )
    if path.suffix == ".gin":
        raise ValueError(f"{path} is a gin file: a sweep is a TOML file that names it in `run`")
    file = TomlFile(str(path), path.read_bytes())
    values: _Values = file.made(_Values, file.values, 1, "the sweep")
    _check_values(file, values)
    grid = _grid_of(file, values.grid)
    count = (math.prod(len(axis) for axis in grid) if grid else 0) + len(values.points)
    jobs = max(count, 1) * len(values.seeds)
    if most_jobs is not None and jobs > most_jobs:
        raise ValueError(
            f"{path}: {max(count, 1)} points of {len(values.seeds)} seeds are {jobs} jobs, more than {most_jobs}: "
            "shorten a list, or say --yes"
        )
    points = (*_grid_points(grid), *_named_points(file, values.points))
    return Sweep(
        file=str(path),
        run=values.run,
        points=points or (Point(name=ALONE, line=file.line_of_key("run"), bindings=()),),
        seeds=values.seeds,
        steps=values.steps,
        init_from=values.init_from,
        metrics=values.metrics,
        lines={key: file.line_of_key(key) for key in ("run", "steps", "init_from")},
    )


def _check_values(file: TomlFile, values: _Values) -> None:
    for key in ("run", "seeds", "metrics"):
        given = getattr(values, key)
        if not given:
            raise file.fault(file.line_of_key(key), f"{key} is an empty list: write at least one")
        if twice := _twice(given):
            raise file.fault(file.line_of_key(key), f"{key} has {twice[0]!r} twice: write it once")
    if (lowest := min(values.seeds)) < 0:
        raise file.fault(file.line_of_key("seeds"), f"seeds has {lowest}: seeds are 0 or more")
    if values.steps is not None and values.steps < 1:
        raise file.fault(
            file.line_of_key("steps"), f"steps = {values.steps}: a run has at least 1 step"
        )
    if values.init_from == "":
        raise file.fault(
            file.line_of_key("init_from"), "init_from is empty: name weights, or leave it out"
        )
    for name in values.metrics:
        if not meaning_of(name):
            raise file.fault(
                file.line_of_key("metrics"),
                f"metrics: no run writes {name!r}: {_meant_metric(name)}",
            )
    for key in ("grid", "points"):
        if key in file.values and not getattr(values, key):
            raise file.fault(file.line(f"[{key}]"), f"[{key}] is empty: fill it, or leave it out")


def _meant_metric(name: str) -> str:
    near = meant(name, list(METRICS))
    return near if near.startswith("did") else "docs/metrics.md lists them"


# A binding of the grid: its name as written, its bindings, and their labels in the names of points.
_Axis = tuple[tuple[Bound, str], ...]


def _grid_of(file: TomlFile, grid: Mapping[str, Any]) -> list[_Axis]:
    names = [name for name, _ in _flat(grid)]
    if twice := _twice(names):
        line = file.line_of_key(twice[0], "grid")
        raise file.fault(line, f"grid binds {twice[0]} twice: write one list")
    shorts = _short_names(names)
    axes = []
    for (name, values), short in zip(_flat(grid), shorts, strict=True):
        line = file.line_of_key(name, "grid")
        if not isinstance(values, list):
            raise file.fault(line, f"grid.{name} must be a list of values: write [{values}]")
        if not values:
            raise file.fault(line, f"grid.{name} is an empty list: write its values")
        texts = [_gin_text(file, line, f"grid.{name}", value) for value in values]
        if twice := _twice(texts):
            raise file.fault(line, f"grid.{name} has {twice[0]} twice: write it once")
        axes.append(
            tuple(
                (Bound(param=f"{name} = {text}", line=line), f"{short}={label}")
                for text, label in zip(texts, _labels(texts), strict=True)
            )
        )
    return axes


def _grid_points(axes: Sequence[_Axis]) -> Iterator[Point]:
    """Every combination, the last binding's values first."""
    for chosen in itertools.product(*axes) if axes else ():
        bindings = tuple(bound for bound, _ in chosen)
        name = ",".join(label for _, label in chosen)
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:8]
            name = f"{name[: _LONGEST_NAME - 9]}-{digest}"
        yield Point(name=name, line=bindings[-1].line, bindings=bindings)


def _named_points(file: TomlFile, points: Mapping[str, Any]) -> Iterator[Point]:
    for name, params in points.items():
        line = file.line_of_key(name, "points")
        if not _NAME.fullmatch(name) or name == JOBS:
            raise file.fault(
                line,
                f"a point cannot be called {name!r}: letters, digits and _ - + . are possible, and not {JOBS!r}",
            )
        if not isinstance(params, list) or not all(isinstance(one, str) for one in params):
            raise file.fault(
                line, f"points.{name} must be a list of bindings: write ['NAME = VALUE', ...]"
            )
        bindings = []
        for param in params:
            at = file.line_of_text(param, line)
            if "=" not in param or "\n" in param:
                raise file.fault(at, f"points.{name}: {param!r} is no binding: write NAME = VALUE")
            bindings.append(Bound(param=param, line=at))
        yield Point(name=name, line=line, bindings=tuple(bindings))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Schedule.samples without quotes is a table in a table; it is the same binding as with them."""
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value


def _short_names(names: Sequence[str]) -> list[str]:
    """The last part of each name, or all of it where that is the last part of another one, too."""
    lasts = [name.rpartition(".")[2] for name in names]
    return [
        _label(last if lasts.count(last) == 1 else name)
        for name, last in zip(names, lasts, strict=True)
    ]


def _labels(texts: Sequence[str]) -> list[str]:
    """Values as parts of a directory's name; their numbers in the list where they are long or look alike."""
    labels = [_label(text) for text in texts]
    is_fit = all(0 < len(label) <= _LONGEST_LABEL for label in labels)
    return labels if is_fit and not _twice(labels) else [str(i) for i in range(len(texts))]


def _label(text: str) -> str:
    plain = text.lower() if text in ("True", "False") else text
    return re.sub(r"[^\w.+-]+", "_", plain, flags=re.ASCII).strip("_")


def _gin_text(file: TomlFile, line: int, where: str, value: Any) -> str:
    """A TOML value as gin writes it."""
    if isinstance(value, str):
        if not value.strip() or "\n" in value:
            raise file.fault(line, f"{where}: {value!r} is no gin value: write it in one line")
        return value.strip()
    if isinstance(value, float) and not math.isfinite(value):
        raise file.fault(line, f"{where}: {value} is no gin value: write a finite number")
    if isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_gin_text(file, line, where, one) for one in value)}]"
    raise file.fault(
        line, f"{where}: {value} is neither number, true, false, list nor gin text in quotes"
    )


def _twice(values: Sequence[Any]) -> list[Any]:
    return [value for number, value in enumerate(values) if value in values[:number]]
