"""Lines of ```bash blocks that are no commands of ours: the shell reads them, and their programs and extras are known.

Those of ours are parsed by test_commands.py, gcloud's by test_pods_page.py.
"""

import re
import shutil
import subprocess

import pytest

from docs.commands import commands, documents, name_of
from jaxtool.config.loader import REPOSITORY_ROOT

# A new program is added here with what checks its lines.
PROGRAMS = {
    "python",  # test_commands.py
    "jaxtool",  # test_commands.py
    "pip",  # the extras, below
    "pytest",  # .ci/run takes the line out of README.md
    "mkdocs",  # test_site.py
    "gcloud",  # test_pods_page.py: the fake gcloud
    "srun",  # a command of ours behind it
    "echo",
    *("hf", "gcsfuse"),  # of others; nothing here runs them
}
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"""^(?:[A-Z_]+=(?:"[^"]*"|'[^']*'|\S*)\s+)+""")


def blocks():
    for file in documents():
        for block in _BLOCK.findall(file.read_text(encoding="utf-8")):
            yield name_of(file), re.sub(r"\\\n\s*", " ", block)


BLOCKS = list(blocks())


def programs(block):
    """The programs that a block starts. Example: "A=1 pip install x && pytest" gives ["pip", "pytest"]."""
    found = []
    for line in block.splitlines():
        for part in re.split(r" && | \| ", line):
            words = _ASSIGNMENT.sub("", part.strip()).split()
            if words and not words[0].startswith("#"):
                found.append(words[0])
    return found


def extras(text):
    return {one for found in re.findall(r"\[([a-z,-]+)\]'", text) for one in found.split(",")}


def test_programs_are_found():
    assert programs("A=1 B='x y' pip install x && pytest\n# no\npython -m a | head") == [
        *("pip", "pytest", "python", "head")
    ]
    assert extras("pip install -e '.[cpu]' 'jaxtool[mcp,hub]'") == {"cpu", "mcp", "hub"}


@pytest.mark.parametrize(("document", "block"), BLOCKS, ids=lambda one: one[:40])
def test_a_block_is_read_by_the_shell_and_starts_known_programs(document, block):
    assert BLOCKS
    unknown = set(programs(block)) - PROGRAMS
    assert not unknown, f"{document} starts {unknown}: say in PROGRAMS what checks them"
    if shutil.which("bash"):
        read = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert read.returncode == 0, f"{document}: {read.stderr}"


def test_every_line_that_starts_python_is_a_command_that_is_parsed():
    for document, block in BLOCKS:
        found = len(
            re.findall(r"\bpython -m [\w.]+|(?:^|(?<=\s))jaxtool [a-z]", block, re.MULTILINE)
        )
        assert len(commands(f"```bash\n{block}```\n", document)) == found, (document, block)


def test_every_extra_that_a_document_names_exists():
    text = (REPOSITORY_ROOT / "setup.py").read_text(encoding="utf-8")
    for file in documents():
        for extra in extras(file.read_text(encoding="utf-8")):
            assert f'        "{extra}": ' in text, f"{name_of(file)} names the extra {extra}"
