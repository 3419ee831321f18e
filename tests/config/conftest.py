"""Fixtures of the tests of gin files."""

import pytest
from gin_files import HEADER


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file below the working directory of the test and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str, name: str = "run.gin", header: str = HEADER) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + text)
        return name

    return write_file
