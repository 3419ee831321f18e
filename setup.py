"""Packaging of jaxtool. Tool settings (ruff, pyright, pytest, import-linter) live in pyproject.toml.

A wheel holds the packages jaxtool, sandbox_server and search_server, and inside of jaxtool copies of gin_configs/ and
of the pages and plans of docs/. A source distribution holds the whole checkout. With SOURCE_DATE_EPOCH two builds of
the same files have the same bytes.
"""

import gzip
import os
import re
import shutil
import tarfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.command.sdist import sdist

# What of the checkout is copied into jaxtool/ of a wheel; an editable install finds it in its place.
INSIDE = ("gin_configs/**/*.gin", "gin_configs/*.md", "docs/*.md", "docs/plans/*.json")


def version() -> str:
    """That of jaxtool/__init__.py, the only place."""
    text = Path("jaxtool/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if found is None:
        raise ValueError('jaxtool/__init__.py has no line __version__ = "..."')
    return found[1]


class BuildPy(build_py):
    """Copies run files, pages and plans into the wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in INSIDE:
            for source in sorted(Path().glob(pattern)):
                target = Path(self.build_lib, "jaxtool", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


class EditableWheel(editable_wheel):
    """An install of a checkout also finds experiments/, from every directory."""

    def run(self) -> None:
        self.distribution.packages = [*(self.distribution.packages or []), "experiments"]
        super().run()


class Sdist(sdist):
    """Packs a source distribution whose bytes depend on the files alone, given SOURCE_DATE_EPOCH."""

    def make_archive(
        self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None
    ) -> str:
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar":
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = int(epoch), 0, 0, "", ""
            is_program = entry.isdir() or entry.mode & 0o100
            entry.mode = 0o755 if is_program else 0o644
            return entry

        root = Path(base_dir or os.curdir)
        packed = f"{base_name}.tar.gz"
        Path(packed).parent.mkdir(parents=True, exist_ok=True)
        with (
            open(packed, "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=int(epoch)) as zipped,
            tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for path in [root, *sorted(root.rglob("*"))]:
                tar.add(path, recursive=False, filter=plain)
        return packed


SANDBOX = [
    "grpcio>=1.80",
    "grpcio-health-checking>=1.80",
    "protobuf>=6.31",
    "h11>=0.16",  # the HTTP door
    "prometheus-client>=0.22",
    "numpy>=2.0",
    "scipy>=1.13",
    "sympy>=1.13",
]

# Data sets by their names on the Hugging Face hub.
HUB = ["datasets>=4.0"]

SEARCH = [
    "aiohttp>=3.14",
    "tantivy>=0.27",
    "prometheus-client>=0.22",
    "pyarrow>=20",
    "numpy>=2.0",
]
# Vectors of an encoder of yours. A directory of sentence-transformers also needs transformers and torch.
SEARCH_DENSE = ["usearch>=2.26"]
SEARCH_QDRANT = ["qdrant-client>=1.18"]

# Tools of MCP servers.
MCP = ["mcp>=2.3,<3"]

TRAINER = [
    # 0.10 is the last line for Python 3.11; jax.set_mesh and jax.P need it.
    "jax>=0.10",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.4",
    "tensorstore>=0.1.78",  # of Orbax's own; reads buckets
    "grain>=0.2.18",
    "transformers>=5.0",
    "tokenizers>=0.22",
    "sentencepiece>=0.2.1",
    "safetensors>=0.6",
    # Chat templates need jinja2 and transformers does not pull it in without torch.
    "jinja2>=3.1",
    "gguf>=0.17",
    "gin-config>=0.5",
    "jaxtyping>=0.3",
    "math-verify>=0.9",
    "aiohttp>=3.14",  # clients of search servers, and of the endpoint that rewrites reasoning
    "jsonschema>=4.20",
    "pyarrow>=20",  # parquet files
    "rich>=13",
    "packaging>=24",
    "tensorboardX>=2.6",
]

TEST = [
    "flatbuffers>=24.3",  # with libtpu, for plans
    "pytest>=8.4",
    "pytest-xdist>=3.8",
    "hypothesis>=6.100",
    "beartype>=0.20",
    "chex>=0.1.90",
    "grpcio-tools>=1.80",
    "import-linter>=2.5",
    "pyright>=1.1.400",
    "pyyaml>=6.0",  # files of docs/launch
    "nbclient>=0.10",  # runs docs/launch/v5e_8.ipynb
    "ipykernel>=6.29",
    "ruff>=0.12",
    "setuptools>=77",  # builds wheel and source distribution
    "mcp-server-time>=2026.10",  # an MCP server that is not ours
    "selenium>=4.30",  # clicks through the report in headless Chromium, where there is one
]

# What our numbers are compared with. Apart from `test`, because pip takes torch with three gigabytes of CUDA on Linux
# where its index has no CPU wheel. Tests marked `parity` are skipped without it and say so.
PARITY = ["torch>=2.9,<2.14", "accelerate>=1.10", "peft>=0.17", "trl>=1.16"]

# The site of docs/: mkdocs build --strict.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.6", "mkdocstrings-python>=2.0", "ruff>=0.12"]

# Where metrics can go besides the run directory, by `--log`. Each is optional and imported only when it is asked for.
TRACKERS = ["wandb>=0.20", "mlflow>=3.1", "trackio>=0.30"]

setup(
    name="jaxtool",
    version=version(),
    description="Reinforcement learning of tool use in JAX: ReTool and OTC-PO on TPUs, GPUs and laptops",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jaxtool*", "sandbox_server*", "search_server*"]),
    package_data={
        "jaxtool.renderers": ["templates/*"],
        "jaxtool.report": ["templates/*"],
        "jaxtool.study": ["suites/*"],
        "jaxtool.cold_start": ["prompts/*"],
        "sandbox_server": [
            "wire/*.proto",
            "deploy/*",
            "attacks/*.py.txt",
            "attacks/sessions/*.py.txt",
        ],
        "search_server": ["deploy/*"],
    },
    cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel, "sdist": Sdist},
    entry_points={"console_scripts": ["jaxtool = jaxtool.cli.dispatch:main"]},
    # Nothing by default: the extra says which machine this is, so that a sandbox host never gets jax.
    install_requires=[],
    extras_require={
        "cpu": TRAINER + SANDBOX,
        "tpu": TRAINER + SANDBOX + ["jax[tpu]>=0.10"],
        "cuda": TRAINER + SANDBOX + ["jax[cuda12]>=0.10"],
        "sandbox": SANDBOX,
        "mcp": MCP,
        "search": SEARCH,
        "search-dense": SEARCH + SEARCH_DENSE,
        "search-qdrant": SEARCH + SEARCH_QDRANT,
        "hub": HUB,
        "test": TRAINER + SANDBOX + HUB + SEARCH + SEARCH_DENSE + SEARCH_QDRANT + MCP + TEST,
        "docs": DOCS,
        "parity": PARITY,
        "trackers": TRACKERS,
    },
)
