"""docs/data.md: its tables are those of the code, and its gin examples build."""

import dataclasses
import re

from jaxtool.config import loader
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.data.difficulty import Difficulty
from jaxtool.data.layouts import PRESETS, Layout
from jaxtool.data.mixtures import Mixture, Part
from jaxtool.data.problems import ProblemFile
from jaxtool.data.row_path import row_path
from jaxtool.train.rl_config import RlConfig

PAGE = (REPOSITORY_ROOT / "docs" / "data.md").read_text(encoding="utf-8")
RUN = "gin_configs/runs/quickstart_grpo.gin"


def rows_behind(heading: str) -> list[list[str]]:
    """Cells of the first table behind a line."""
    lines = PAGE.split(f"\n{heading}\n", 1)[1].split("\n\n")
    table = next(part.strip() for part in lines if part.strip().startswith("|"))
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]
    ]


def test_the_table_of_layouts_is_that_of_the_code():
    [(start, _)] = [
        m.span() for m in re.finditer("^The layouts with a name.*$", PAGE, re.MULTILINE)
    ]
    heading = PAGE[start:].splitlines()[0]
    assert rows_behind(heading) == [[f"`{name}`", p.about] for name, p in PRESETS.items()]


def test_every_path_of_the_table_is_one():
    paths = [
        path
        for path, _ in rows_behind(
            "A layout says where a row keeps its question and answer, by paths."
        )
    ]
    assert len(paths) == 5
    for path in paths:
        assert row_path(path.strip("`")).steps


def test_the_gin_examples_build(tmp_path):
    """Each block of bindings, laid over a run."""
    found = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    blocks = [block for block in found if "problems.ProblemFile" in block]
    built = []
    for number, block in enumerate(blocks):
        lines = ["# Of the page.", "from __gin__ import dynamic_registration"]
        for module in ("problems", "layouts", "mixtures", "difficulty"):
            if f"{module}." in block:
                lines.append(f"from jaxtool.data import {module}")
        lines.append("from jaxtool.train import rl_config")
        if "RlConfig.task" not in block:
            lines.append("rl_config.RlConfig.task = @problems.ProblemFile()")
            lines.append("problems.ProblemFile.path = 'x'")
        file = tmp_path / f"{number}.gin"
        file.write_text("\n".join([*lines, block]))
        config = loader.load(RlConfig, files=[RUN, file])
        record = loader.write_operative_config(tmp_path / str(number), config)
        assert loader.load(RlConfig, files=[record]) == config
        built.append(config.task)
    dapo = ProblemFile(path="data/dapo-math-17k.parquet", layout="dapo_math_17k")
    gsm8k = ProblemFile(path="data/gsm8k_train.jsonl", layout="gsm8k")
    own = Layout(
        question="prompt[-1].content", answer="reward_model.ground_truth", level="data_source?"
    )
    assert built == [
        dataclasses.replace(dapo, test_path="data/aime24.jsonl", test_layout="aime24"),
        ProblemFile(path="x", layout=own),
        Mixture(parts=(Part(task=dapo, weight=3.0), Part(task=gsm8k, weight=1.0))),
        Difficulty(task=dapo, rates="runs/rates.jsonl"),
    ]
