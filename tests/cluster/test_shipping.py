"""What goes to the hosts: the checkout without what git ignores, and no path of this machine."""

import io
import subprocess
import tarfile

import pytest

from jaxtool.cluster.shipping import archive, check_path, check_paths, files_of
from jaxtool.config.listing import SetValue


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "checkout"
    (root / "jaxtool").mkdir(parents=True)
    (root / "jaxtool" / "a.py").write_text("a = 1\n")
    (root / "runs").mkdir()
    (root / "runs" / "metrics.jsonl").write_text("{}\n")
    (root / ".gitignore").write_text("runs/\n")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def names_in(packed):
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return tar.getnames()


def test_the_archive_holds_what_git_does_not_ignore_and_is_named_by_it(checkout):
    name, packed = archive(checkout)
    assert names_in(packed) == [".gitignore", "jaxtool/a.py"]
    (checkout / "jaxtool" / "a.py").touch()
    assert archive(checkout) == (name, packed)  # the same files, whenever they were written
    (checkout / "jaxtool" / "b.py").write_text("")
    assert archive(checkout)[0] != name


def test_without_git_all_but_what_is_made_is_taken(checkout):
    subprocess.run(["rm", "-rf", str(checkout / ".git")], check=True)
    assert [file.name for file in files_of(checkout)] == [".gitignore", "a.py"]


def test_a_checkout_with_data_in_it_is_refused_with_the_largest_file(checkout):
    with open(checkout / "weights.bin", "wb") as file:
        file.truncate(201 * 2**20)
    with pytest.raises(ValueError, match=r"has 201 MiB that git does not ignore.*weights.bin"):
        archive(checkout)


@pytest.mark.parametrize("value", ["'{path}'", "('{path}', 'gs://b/x')"])
def test_a_setting_that_names_a_path_of_this_machine_is_refused(checkout, value):
    text = value.format(path=checkout / "runs" / "metrics.jsonl")
    values = {"problems.ProblemFile.path": SetValue(value=text, origin="run.gin:7")}
    with pytest.raises(
        ValueError, match=r"ProblemFile.path = .*run.gin:7. is a path of this machine"
    ):
        check_paths(values, checkout)


def test_what_is_shipped_in_a_bucket_or_nowhere_here_is_let_through(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    texts = ("'jaxtool/a.py'", "'gs://b/x'", "'org/name'", "'/nowhere/x'", "@other.Thing()", "3")
    check_paths({t: SetValue(value=t, origin="default") for t in texts}, checkout)
    with pytest.raises(ValueError, match=r"--data runs/metrics.jsonl is a path of this machine"):
        check_path("runs/metrics.jsonl", "--data runs/metrics.jsonl", set())
