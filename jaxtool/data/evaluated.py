"""Answers of an evaluation as rows of solve rates: the files of its work directory (`experiments.evaluate --workdir`).

Knows of the directory only where its files are; what else is in them, `jaxtool.rundir.answer_records` says.
"""

import json
from pathlib import Path

SETTINGS = "evaluation.json"
# Columns that a solve rate needs.
COLUMNS = ("problem_id", "question", "is_correct", "is_lost")


def is_evaluation(text: str) -> bool:
    """Whether a name means the work directory of an evaluation, or a part of one."""
    return _split(text) is not None


def evaluated_files(text: str) -> list[Path]:
    """The files of `runs/eval`, `runs/eval:POLICY` or `runs/eval:POLICY/CONDITION`, in order.

    Raises:
      ValueError: the name means answers of several policies or conditions, or of none, or some are missing; one line.
    """
    found = _split(text)
    if found is None:
        raise ValueError(f"{text} is no work directory of experiments.evaluate")
    workdir, part = found
    settings = json.loads((workdir / SETTINGS).read_text(encoding="utf-8"))
    folders = sorted(folder for folder in (workdir / "answers").glob("*/*") if folder.is_dir())
    policy, _, condition = part.partition("/")
    chosen = [
        folder
        for folder in folders
        if policy in ("", folder.parent.name) and condition in ("", folder.name)
    ]
    if len(chosen) != 1:
        known = ", ".join(f"{workdir}:{folder.parent.name}/{folder.name}" for folder in folders)
        what = "several sets of answers" if chosen else "no answers"
        raise ValueError(f"{text} holds {what}: name one of {known or 'none yet'}")
    [folder] = chosen
    chunks = -(-settings["questions"] // settings["chunk_questions"])
    files = [folder / f"{chunk:05d}.parquet" for chunk in range(chunks)]
    if missing := [file for file in files if not file.is_file()]:
        raise ValueError(
            f"{text} is not finished: {missing[0].name} is missing in {folder}; give the command of the evaluation "
            "again and it goes on"
        )
    return files


def _split(text: str) -> tuple[Path, str] | None:
    """Work directory, and what stands behind the colon; None: it is none."""
    if (Path(text) / SETTINGS).is_file():
        return Path(text), ""
    workdir, colon, part = text.rpartition(":")
    if colon and (Path(workdir) / SETTINGS).is_file():
        return Path(workdir), part
    return None
