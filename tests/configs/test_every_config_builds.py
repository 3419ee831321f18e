"""Every gin file of the repository is well formed, and every run and study variant builds its target."""

import pathlib
import re

import pytest

from jaxtool.config import loader

CONFIGS = loader.REPOSITORY_ROOT / "gin_configs"
BUILT_FOLDERS = ("runs", "study")


def gin_files(root: pathlib.Path) -> list[pathlib.Path]:
    return sorted(root.rglob("*.gin"))


def built_files(root: pathlib.Path) -> list[pathlib.Path]:
    return [file for file in gin_files(root) if file.relative_to(root).parts[0] in BUILT_FOLDERS]


def relative(path: pathlib.Path) -> str:
    return str(path.relative_to(CONFIGS))


def check_builds_and_records(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target = loader.target_of(file)
    config = loader.load(target, files=[file])
    record = loader.write_operative_config(tmp_path, config)
    assert loader.load(target, files=[record]) == config


@pytest.mark.parametrize("file", built_files(CONFIGS), ids=relative)
def test_run_file_builds_and_its_record_builds_the_same(file, tmp_path):
    check_builds_and_records(file, tmp_path)


VARIANTS = sorted(
    file for folder in ("algos", "decoders", "tools") for file in (CONFIGS / folder).glob("*.gin")
)


@pytest.mark.parametrize("file", VARIANTS, ids=relative)
def test_variant_builds_on_a_run(file, tmp_path):
    """Laid over the quickstart's GRPO run, each of them changes it, and the record builds the same."""
    run = CONFIGS / "runs" / "quickstart_grpo.gin"
    target = loader.target_of(run)
    config = loader.load(target, files=[run, file])
    assert (config == loader.load(target, files=[run])) is (file.name == "grpo.gin")
    record = loader.write_operative_config(tmp_path, config)
    assert loader.load(target, files=[record]) == config


@pytest.mark.parametrize("file", gin_files(CONFIGS), ids=relative)
def test_file_is_enabled_for_dynamic_registration_and_explains_itself(file):
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert "from __gin__ import dynamic_registration" in lines


def twice(files: list[pathlib.Path]) -> set[str]:
    """Names that two files have."""
    names = [file.name for file in files]
    return {name for name in names if names.count(name) > 1}


def test_a_name_belongs_to_one_file():
    assert twice(gin_files(CONFIGS)) == set()
    assert twice([CONFIGS / "a" / "one.gin", CONFIGS / "b" / "one.gin"]) == {"one.gin"}


def unused_imports(file: pathlib.Path) -> list[str]:
    """Names that a file imports and does not use."""
    text = file.read_text(encoding="utf-8")
    code = "\n".join(line.split("#")[0] for line in text.splitlines())
    found = re.findall(r"^(?:from [\w.]+ )?import ([\w.]+)(?: as (\w+))?$", code, re.MULTILINE)
    names = [alias or name for name, alias in found if name != "dynamic_registration"]
    used = {name for name in names if re.search(rf"(?<![\w.]){re.escape(name)}\.\w", code)}
    return [name for name in names if name not in used]


@pytest.mark.parametrize("file", gin_files(CONFIGS), ids=relative)
def test_a_file_uses_what_it_imports(file):
    assert unused_imports(file) == []


def test_there_are_run_files():
    assert built_files(CONFIGS)


def test_a_temporary_tree_is_found_and_built(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "problem.gin").write_text(
        "from __gin__ import dynamic_registration\nfrom jaxtool.core import types\n"
        "types.Problem.question = 'What is 2 + 2?'\n"
    )
    run = tmp_path / "runs" / "one.gin"
    run.write_text(
        "# A problem.\n# target: jaxtool.core.types.Problem\n"
        "from __gin__ import dynamic_registration\nfrom jaxtool.core import types\n"
        "include '../parts/problem.gin'\n"
        "types.Problem.problem_id = 'p1'\ntypes.Problem.answer = '4'\n"
    )
    assert built_files(tmp_path) == [run]
    assert len(gin_files(tmp_path)) == 2
    check_builds_and_records(run, tmp_path / "workdir")
    run.write_text(run.read_text() + "types.Problem.level = 3\n")
    with pytest.raises(loader.ConfigError, match=r"one\.gin:8: types.Problem.level: expected"):
        check_builds_and_records(run, tmp_path / "workdir")
