"""Data sets named on the command line, as `NAME[=FILE]`: problems to train on, and test sets.

NAME is a layout (`jaxtool.data.layouts`). FILE is a file on this machine or a set on the hub; without it the rows
come from where the layout's set is published.
"""

import math
from collections.abc import Collection, Sequence

from jaxtool.data.layouts import PRESETS, Preset, preset_named
from jaxtool.data.mixtures import Mixture, Part
from jaxtool.data.problems import EvaluationSet, EvaluationSets, ProblemFile
from jaxtool.data.rows import stem_of


def training_data(text: str) -> ProblemFile:
    """The problem file of `NAME[=FILE]`, or of a file alone in the layout `plain`."""
    name, preset, path = _parts(text)
    if path is not None:
        return ProblemFile(path=path, layout=name)
    if preset.train is None:
        raise ValueError(
            f"--data {name}: {preset.about} are published for tests, or nowhere that is known here: name a "
            f"file, as --data {name}=FILE"
        )
    return ProblemFile(path=preset.train, layout=name, test_path=preset.test)


def mixed_data(texts: Sequence[str], mix: str | None = None) -> ProblemFile | Mixture:
    """The problem file of one `NAME[=FILE]`, or the mixture of several.

    An example: ["gsm8k=a.jsonl", "mine.csv"] with "gsm8k=3,mine=1" asks three problems of a.jsonl for each of mine.csv.

    Args:
      mix: `NAME=WEIGHT` of each set, joined by commas, where a set is called as in `evaluate`: by its layout, or by its
        file where the layout is plain or taken. None: all alike.

    Raises:
      ValueError: as `training_data`; a set is named twice, or weights do not fit the sets.
    """
    tasks: dict[str, ProblemFile] = {}
    for text in texts:
        task = training_data(text)
        called = _called(_parts(text)[0], str(task.path), tasks)
        if called in tasks or task in tasks.values():
            raise ValueError(
                f"--data {text}: that set is there already: name each set once, and files of one name by other names"
            )
        tasks[called] = task
    if len(tasks) == 1 and mix is None:
        return next(iter(tasks.values()))
    if len(tasks) < 2:
        raise ValueError(f"--mix {mix}: weights are of several sets: give --data twice or more")
    weights = dict.fromkeys(tasks, 1.0) if mix is None else _weights(mix, list(tasks))
    return Mixture(
        parts=tuple(Part(task=task, weight=weights[name]) for name, task in tasks.items())
    )


def _weights(mix: str, names: list[str]) -> dict[str, float]:
    """Of "a=3,b=1". Raises ValueError unless each of `names` has one."""
    known = ", ".join(names)
    weights: dict[str, float] = {}
    for part in mix.split(","):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        if name not in names:
            raise ValueError(
                f"--mix {mix}: there is no set {name or part!r}, the sets of --data are {known}: write "
                f"NAME=WEIGHT of each, as --mix {','.join(f'{name}=1' for name in names)}"
            )
        if name in weights:
            raise ValueError(f"--mix {mix}: {name!r} has two weights: give it one")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise ValueError(f"--mix {mix}: the weight of {name!r} must be a number above 0")
    if missing := [name for name in names if name not in weights]:
        raise ValueError(
            f"--mix {mix}: no weight for {', '.join(missing)}: give each set one, or leave --mix out and all "
            "weigh the same"
        )
    return weights


def evaluation_data(texts: Sequence[str]) -> EvaluationSets:
    """The test sets of `NAME[=FILE]`, one or more."""
    sets: list[EvaluationSet] = []
    for text in texts:
        name, preset, path = _parts(text)
        path = preset.test if path is None else path
        if path is None:
            raise ValueError(
                f"--data {name}: it is not known where its test set is published: name a file, as "
                f"--data {name}=FILE"
            )
        called = _called(name, path, [each.name for each in sets])
        sets.append(EvaluationSet(name=called, path=path, layout=name))
    return EvaluationSets(sets=tuple(sets))


def _called(layout: str, path: str, taken: Collection[str]) -> str:
    """A set is called as its layout, as in aime24=FILE; by its file where that name is taken or says nothing."""
    called = stem_of(path) if layout == "plain" else layout
    return f"{layout}_{stem_of(path)}" if called in taken else called


def _parts(text: str) -> tuple[str, Preset, str | None]:
    """Name of a layout, the layout's preset, and a file or None."""
    name, has_file, path = text.partition("=")
    if has_file:
        if not path:
            raise ValueError(f"--data {text}: name a file behind the equals sign, or leave it out")
        return name, preset_named(name), path
    if name in PRESETS:
        return name, PRESETS[name], None
    if "/" in text or "." in text:  # a file, or a name on the hub
        return "plain", PRESETS["plain"], text
    return name, preset_named(name), None
