"""Data sets named on the command line, as `NAME[=FILE]`: problems to train on, and test sets.

NAME is a layout (`jaxtool.data.layouts`). FILE is a file on this machine or a set on the hub; without it the rows
come from where the layout's set is published.
"""

from collections.abc import Sequence

from jaxtool.data.layouts import PRESETS, Preset, preset_named
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
        # A set is called as its layout, as in aime24=FILE; by its file where that name is taken or says nothing.
        called = stem_of(path) if name == "plain" else name
        if called in [each.name for each in sets]:
            called = f"{name}_{stem_of(path)}"
        sets.append(EvaluationSet(name=called, path=path, layout=name))
    return EvaluationSets(sets=tuple(sets))


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
