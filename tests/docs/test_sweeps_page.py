"""docs/sweeps.md: its files are sweeps that build, and its lines are those that the code says."""

import dataclasses
import re

import pytest

from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.study import sweep as sweeps
from jaxtool.study.sweep_files import MOST_JOBS, _Values, load_sweep

PAGE = (REPOSITORY_ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
FILES = re.findall(r"`(my_\w+)\.toml`.*?```toml\n(.*?)```", PAGE, re.DOTALL)


def loaded(folder, name, text):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return load_sweep(path)


def test_each_file_of_the_page_builds(tmp_path):
    counts = {}
    for name, text in FILES:
        sweep = loaded(tmp_path, name, text)
        counts[name] = [point.point.name for point in sweeps.composed(sweep)]
        assert sweep.seeds == (0, 1, 2)
    assert counts["my_rates"] == [f"matrix_learning_rate={rate}" for rate in (0.02, 0.005, 0.08)]
    assert len(counts["my_rewards"]) == 6
    assert counts["my_rewards"][-2:] == ["otc", "otc_c9"]
    for point in counts["my_rates"]:
        assert f"│ {point}" in PAGE


def test_the_refusals_of_the_page_are_those_of_the_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [text] = [text for name, text in FILES if name == "my_rates"]
    wrong = text.replace("0.08", "true")
    path = tmp_path / "my_rates.toml"
    path.write_text(wrong)
    with pytest.raises(ValueError, match="expected float") as said:
        sweeps.composed(load_sweep("my_rates.toml"))
    assert f"error: {said.value}\n" in PAGE
    path.write_text(text)
    sweep = load_sweep("my_rates.toml")
    (tmp_path / "w").mkdir()
    sweeps.write_record(tmp_path / "w", {"settings": sweeps.settings_of(sweep)})
    fewer = dataclasses.replace(sweep, points=sweep.points[:2])
    with pytest.raises(ValueError, match="holds another sweep") as said:
        sweeps.check(fewer, [], tmp_path / "w")
    shown = str(said.value).replace(str(tmp_path / "w"), "runs/my_rates").partition("; more")[0]
    assert f"error: {shown}; ..." in PAGE


def test_the_table_of_keys_is_that_of_the_file():
    rows = PAGE.split("## The file\n", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    keys = set(re.findall(r"^\| `\[?(\w+)\]?`", "\n".join(rows), re.MULTILINE))
    assert keys == {field.name for field in dataclasses.fields(_Values)}
    assert f"more than {MOST_JOBS} jobs" in PAGE
