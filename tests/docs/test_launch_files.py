"""The files of docs/launch parse as what they are, and their commands of ours are commands that exist."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml
from helpers import fake_gcloud

from jaxtool.cli import doctor, train
from jaxtool.config.loader import REPOSITORY_ROOT

FOLDER = REPOSITORY_ROOT / "docs" / "launch"
SHELL = ("slurm.sbatch", "xpk.sh")
SKYPILOT = ("skypilot_tpu.yaml", "skypilot_gpu.yaml")
# Of SkyPilot's YAML reference.
TASK_KEYS = {
    *("name", "workdir", "num_nodes", "resources", "envs", "secrets", "volumes", "file_mounts"),
    *("setup", "run", "config", "service"),
}
RESOURCE_KEYS = {
    *("infra", "accelerators", "accelerator_args", "cpus", "memory", "instance_type", "use_spot"),
    *("disk_size", "disk_tier", "network_tier", "ports", "image_id", "labels", "any_of", "ordered"),
    *("autostop", "job_recovery"),
}
SBATCH = {
    *("job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "mem", "exclusive"),
    *("time", "signal", "requeue", "open-mode", "output", "partition", "account"),
}
XPK = {  # of xpk's own parsers
    ("cluster", "create"): {
        *("--cluster", "--project", "--zone", "--tpu-type", "--num-slices", "--spot"),
        *("--on-demand", "--reservation", "--enable-gcsfuse-csi-driver"),
    },
    ("storage", "attach"): {
        *("--cluster", "--project", "--zone", "--type", "--bucket", "--size", "--mount-point"),
        *("--readonly", "--auto-mount", "--mount-options"),
    },
    ("workload", "create"): {
        *("--cluster", "--project", "--zone", "--workload", "--tpu-type", "--num-slices"),
        *("--docker-image", "--max-restarts", "--command", "--priority"),
    },
    ("workload", "list"): {"--cluster", "--project", "--zone", "--wait-for-job-completion"},
}


def text_of(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def joined(text):
    """Lines that end in a backslash with those that follow."""
    return re.sub(r"\\\n\s*", "", text)


def test_every_file_is_looked_at():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(
        ["Dockerfile", "v5e_8.ipynb", *SHELL, *SKYPILOT]  # the notebook: test_notebook.py
    )
    pages = (FOLDER.parent / "pods.md").read_text() + (FOLDER.parent / "gpus.md").read_text()
    assert all(f"(launch/{path.name})" in pages for path in FOLDER.iterdir())


@pytest.mark.parametrize("name", SHELL)
def test_bash_reads_it(name):
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)


@pytest.mark.parametrize("name", SHELL)
def test_without_arguments_it_says_how_it_is_called(name):
    done = subprocess.run(["bash", str(FOLDER / name)], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"docs/launch/{name}" in done.stderr


@pytest.mark.parametrize("name", SKYPILOT)
def test_skypilot_knows_every_key(name):
    task = yaml.safe_load(text_of(name))
    assert set(task) <= TASK_KEYS
    assert set(task["resources"]) <= RESOURCE_KEYS
    assert task["file_mounts"]["/bucket"] == {"source": "gs://${BUCKET}", "mode": "MOUNT"}
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)
    for variable in re.findall(r"\$\{?([A-Z]+)\b(?!_)", task["run"]):
        assert variable in {*task["envs"], "HOME"} or variable.startswith("SKYPILOT")


def test_slurm_knows_every_option_and_each_node_has_one_task():
    options = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in text_of("slurm.sbatch").splitlines()
        if line.startswith("#SBATCH")
    )
    assert set(options) <= SBATCH
    assert options["ntasks-per-node"] == "1"
    assert options["signal"].startswith("TERM@")  # time to save before the job ends


def test_xpk_knows_every_flag():
    found = []
    for line in joined(text_of("xpk.sh")).splitlines():
        if line.startswith("xpk "):
            words = shlex.split(line)
            flags = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert flags <= XPK[words[1], words[2]], line
            found.append((words[1], words[2]))
    assert found == list(XPK)


def run_commands():
    """The arguments of each `python -m experiments...` of the files, with stand-ins for variables."""
    values = {
        "$run": "run.gin",
        "$workdir": "runs/mine",
        "$first": "10.0.0.1",
        "$FLAGS": "--seed 1",
    }
    values |= {
        "$SKYPILOT_NUM_NODES": "2",
        "$SKYPILOT_NODE_RANK": "0",
        "$NAME": "mine",
        "$name": "mine",
    }
    for name in (*SHELL, *SKYPILOT):
        text = text_of(name) if name in SHELL else yaml.safe_load(text_of(name))["run"]
        for module, rest in re.findall(r"python -m experiments\.(\w+) (.*)", joined(text)):
            for variable, value in values.items():
                rest = rest.replace(variable, value)
            rest = re.split(r'"?\$[@(]', rest)[0]  # what the caller adds
            if rest.count('"') % 2:
                rest = rest.rpartition('"')[0]
            yield name, module, shlex.split(rest)


@pytest.mark.parametrize(("name", "module", "words"), list(run_commands()))
def test_commands_of_ours_parse(name, module, words, monkeypatch):
    if module == "train" and "--gin_file" not in words:
        words = [*words, "--gin_file", "run.gin"]  # it comes with the flags
    monkeypatch.setattr(sys, "argv", [module, *words])
    arguments = {"train": train, "doctor": doctor}[module].parse()
    assert arguments.workdir is not None


def test_there_are_commands_of_ours_in_each():
    assert {name for name, module, _ in run_commands() if module == "train"} == {*SHELL, *SKYPILOT}


def test_the_dockerfile_is_one_and_copies_what_there_is():
    known = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD", "USER", "ENV"}
    lines = [line for line in joined(text_of("Dockerfile")).splitlines() if line.strip()]
    steps = [line.split(maxsplit=1) for line in lines if not line.startswith("#")]
    assert {step for step, _ in steps} <= known
    assert steps[0] == ["FROM", "python:3.12-slim"]
    copied = {source for step, rest in steps if step == "COPY" for source in rest.split()[:-1]}
    assert all((REPOSITORY_ROOT / source).exists() for source in copied)
    # All that setup.py makes packages of, and what a run file includes.
    assert {"jaxtool", "sandbox_server", "search_server", "experiments", "gin_configs"} <= copied
    assert steps[-1] == ["ENTRYPOINT", '["python", "-m", "experiments.train"]']


def test_the_types_of_the_files_are_those_of_the_pages():
    tpu = yaml.safe_load(text_of("skypilot_tpu.yaml"))["resources"]
    assert tpu["accelerators"] == "tpu-v6e-16"
    assert tpu["accelerator_args"]["runtime_version"] == "v2-alpha-tpuv6e"
    assert "v6e-16" in fake_gcloud.TYPES
