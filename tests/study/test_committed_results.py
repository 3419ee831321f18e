"""The figures in docs/results: of variants that there are, and the tables of docs/results.md."""

import gzip
import json

import pytest

from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.study import tables
from jaxtool.study.variants import ARITHMETIC

FOLDER = REPOSITORY_ROOT / "docs" / "results"


def read(name):
    return json.loads(gzip.decompress((FOLDER / name).read_bytes()))


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json.gz")), ids=lambda file: file.name)
def test_committed_figures_name_variants_as_the_study_does(file):
    found = read(file.name)
    for name, figures in found["variants"].items():
        assert figures["starts_from"] == ARITHMETIC.variants[name].start
    pairs = {name for pair in found["paired"] for name in pair.split(" against ")}
    assert pairs <= set(ARITHMETIC.variants)


def test_the_tables_of_the_document_are_those_of_the_committed_figures():
    document = (REPOSITORY_ROOT / "docs/results.md").read_text("utf-8").splitlines()
    rows = [line for line in tables.markdown(read("results.json.gz")).splitlines() if line]
    assert [row for row in rows if row.startswith("|") and row not in document] == []
