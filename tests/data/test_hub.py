"""Data sets by hub name, from a hub on this machine: read, kept for later without network, refused in one line."""

import importlib.util
import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.loopback_hub import loopback_hub

from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.data.hub import HubName, _refusal

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the extra hub"
)
CARD = b"""---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""
# Reads each name of the arguments and prints what was read, or the refusal, as JSON.
READ = """
import json, sys
from jaxtool.data.problem_rows import read_set
from jaxtool.data.layouts import layout_of
for name, layout in json.loads(sys.argv[1]):
    try:
        found = read_set(name, layout)
        print(json.dumps([str(found), [p.problem_id.split("/")[0] + " " + p.question for p in found.problems]]))
    except (OSError, ValueError) as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
"""


def parquet(count: int) -> bytes:
    rows = [{"question": f"q{i}", "answer": f"so\n#### {i}", "other": "x"} for i in range(count)]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


REPOSITORIES = {
    "datasets/openai/gsm8k": {
        "README.md": CARD,
        "main/train-00000-of-00001.parquet": parquet(3),
        "main/test-00000-of-00001.parquet": parquet(2),
        "socratic/train-00000-of-00001.parquet": parquet(1),
    },
    "datasets/someone/lines": {"train.jsonl": b'{"question": "a", "answer": "1"}\n' * 2},
}


def read(endpoint: str, home: str, asked: list[tuple[str, str]], **environment: str) -> list:
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": home, "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(asked)],
        cwd=REPOSITORY_ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@needs_datasets
def test_sets_are_read_from_the_hub_and_later_without_network(tmp_path):
    with loopback_hub(REPOSITORIES) as hub:
        train, test, lines, *refused = read(
            hub.url,
            str(tmp_path),
            [
                ("openai/gsm8k:main@train", "gsm8k"),
                ("openai/gsm8k:main@test", "gsm8k"),
                ("someone/lines", "plain"),  # the only split
                ("openai/gsm8k:main", "gsm8k"),
                ("openai/gsm8k:main@dev", "gsm8k"),
                ("openai/gsm8k@train", "gsm8k"),
                ("openai/gsm8k:main@train", "math500"),
                ("nobody/none@train", "plain"),
            ],
        )
        endpoint = hub.url
    assert train == [
        "openai/gsm8k:main@train: 3 rows, no question twice",
        ["gsm8k q0", "gsm8k q1", "gsm8k q2"],
    ]
    assert test[1] == ["gsm8k q0", "gsm8k q1"]
    assert lines == ["someone/lines: 2 rows, 1 different questions; 1 rows repeat one", ["lines a"]]
    wanted = [
        "ValueError: openai/gsm8k:main has the splits train, test: write openai/gsm8k:main@train",
        "['train', 'test']",
        "['main', 'socratic']",
        "openai/gsm8k:main@train: row 1: no problem: the row has 'question', 'answer', 'other'",
        f"OSError: there is no file nobody/none@train, and no such data set on {endpoint}",
    ]
    for said, part in zip(refused, wanted, strict=True):
        assert part in said
        assert "\n" not in said
    # The hub is gone, and what was read once is here.
    again, absent = read(
        endpoint,
        str(tmp_path),
        [("openai/gsm8k:main@train", "gsm8k"), ("nobody/else@train", "plain")],
        HF_HUB_OFFLINE="1",
    )
    assert again == train
    assert absent.startswith(
        f"OSError: there is no file nobody/else@train, and {endpoint} cannot be reached"
    )
    assert "hf download --repo-type dataset nobody/else --local-dir DIR" in absent


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("openai/gsm8k", HubName(repository="openai/gsm8k")),
        ("a/b:main", HubName(repository="a/b", config="main")),
        ("a/b@test", HubName(repository="a/b", split="test")),
        (
            "Hothan/O-B_1.0:OE_TO@train",
            HubName(repository="Hothan/O-B_1.0", config="OE_TO", split="train"),
        ),
        ("gsm8k", None),
        ("a/b/c", None),
        ("./a/b", None),
        ("/a/b", None),
        ("../b", None),
        ("a/b:", None),
        ("a/b c", None),
    ],
)
def test_what_is_a_hub_name(text: str, name: HubName | None):
    assert HubName.parse(text) == name
    assert name is None or str(name) == text


def test_a_hub_that_does_not_answer_is_told_from_other_trouble():
    name = HubName(repository="a/b")
    cause = ConnectionError("no route\nto host")
    wrapped = RuntimeError("LocalEntryNotFound")
    wrapped.__cause__ = cause
    for error in (cause, wrapped):
        said = _refusal(name, error)
        assert isinstance(said, OSError)
        assert "cannot be reached" in str(said)
        assert "\n" not in str(said)
    other = _refusal(name, RuntimeError("a cell is broken"))
    assert isinstance(other, ValueError)
    assert "a/b of https://huggingface.co cannot be read: a cell is broken" in str(other)
