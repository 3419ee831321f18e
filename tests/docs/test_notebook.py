"""docs/launch/v5e_8.ipynb: its commands parse, and a Jupyter kernel runs its first half on this CPU.

The whole of it takes a minute of a processor, so `python -m docs.nightly` runs it, by `python -m docs.run_notebook`.
"""

import importlib.util
import re
import shlex

import jax
import pytest
from helpers.parsing import check_parses
from helpers.smollm2 import smollm2_or_skip

from docs import run_notebook
from docs.commands import Command
from jaxtool.config import loader
from jaxtool.parallel.mesh import make_mesh
from jaxtool.train import devices
from jaxtool.train.rl_config import RlConfig

NOTEBOOK = run_notebook.notebook()
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SMOLLM2 = re.findall(r'^SMOLLM2 = "(.*?)"', "\n".join(CODE), re.MULTILINE)[0]


def test_the_notebook_holds_no_outputs_and_its_cells_compile():
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    for source in CODE:
        compile(source, "cell", "exec")
    assert len(CODE) >= 7


def named_commands():
    """Each jaxtool("...") of the cells, with stand-ins for what it fills in."""
    found = re.findall(r'jaxtool\(\s*f?"([^"]*)"\s*\)', "\n".join(CODE))
    values = {"WORK": "runs", "TOPOLOGY": "v5e:2x4", "QUICKSTART": "", "SMOLLM2": SMOLLM2}
    return [re.sub(r"\{(\w+)\}", lambda match: values[match[1]], line) for line in found]


def test_the_notebook_does_what_it_says():
    names = {shlex.split(line)[0] for line in named_commands()}
    assert names == {"--version", "doctor", "plan", "quickstart", "train", "report"}


@pytest.mark.parametrize("line", named_commands())
def test_each_command_of_the_notebook_parses(line, monkeypatch):
    name, *words = shlex.split(line)
    if name == "--version":
        return
    module = "jaxtool.report" if name == "report" else f"jaxtool.cli.{name}"
    command = Command(document="v5e_8.ipynb", module=module, arguments=tuple(words), is_whole=True)
    check_parses(command, monkeypatch)


def test_settings_are_those_of_the_notebook():
    book = run_notebook.with_settings(NOTEBOOK, run_notebook.SMALL, ["smollm2"])
    (cell,) = [c for c in book["cells"] if "parameters" in c["metadata"].get("tags", ())]
    values: dict[str, str] = {}
    exec(cell["source"], values)
    assert values["EXTRA"] == "cpu"
    assert values["QUICKSTART"].startswith("--steps 1")
    assert not any("smollm2" in c["source"] for c in book["cells"])
    with pytest.raises(ValueError, match="has no setting SMOLM"):
        run_notebook.with_settings(NOTEBOOK, {"SMOLM": ""})


def test_a_kernel_runs_the_notebook_up_to_the_plan(tmp_path):
    if not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))):
        pytest.skip("nbclient and ipykernel are not installed: pip install -e '.[test]'")
    without = ["smollm2", 'jaxtool(f"quickstart', "results.json", 'is_installed("libtpu")']
    said = run_notebook.execute(
        run_notebook.with_settings(NOTEBOOK, run_notebook.SMALL, without), tmp_path
    )
    assert re.search(r"^jaxtool \d", said[1])
    assert re.search(r"^ok +devices", said[2], re.MULTILINE)
    assert (tmp_path / "run.ipynb").is_file()


@pytest.mark.real_model
def test_the_real_models_run_takes_all_eight_devices():
    smollm2_or_skip()
    file = "gin_configs/runs/smollm2_products.gin"
    config = loader.load(RlConfig, files=[file], params=shlex.split(SMOLLM2)[1::2])
    model = config.policy.model_config()
    mesh = make_mesh(
        config.mesh,
        jax.devices()[:8],
        lambda mesh: devices.check_mesh(mesh, config, model),
    )
    assert mesh.size == 8
