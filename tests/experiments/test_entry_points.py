"""The commands of the README, shortened: cold start, RL, evaluation and report, as a user starts them."""

import json
import os
import subprocess
import sys

import pytest

from jaxtool.cli import entry, plan, reproduce
from jaxtool.cli import train as train_entry_point
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.train import run_files

RUNS = "gin_configs/runs"
SHORT_RL = [
    "STEPS = 2",
    "Schedule.problems_per_step = 4",
    "Schedule.samples = 4",
    "Schedule.pool = 32",
    "Schedule.checkpoint_every = 1",
    "EngineConfig.decode_rows = 16",
    "RolloutConfig.max_response_tokens = 40",
]


def start(module, *flags, check=True, flags_of_xla=""):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags_of_xla}"
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)],
        cwd=REPOSITORY_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def refusal(monkeypatch, main, *flags):
    """What an entry point ends with, as `entry.run` says it; in this process, which has jax already."""
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr("sys.argv", ["entry_point", *map(str, flags)])
    with pytest.raises(SystemExit) as ended:
        entry.run(main)
    said = str(ended.value)
    assert said.startswith("error: ")
    assert said.count("\n") == 1  # before how to see a traceback
    return said


def params(*bindings):
    return [flag for binding in bindings for flag in ("--gin_param", binding)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base policy after three steps."""
    workdir = tmp_path_factory.mktemp("base")
    file = f"{RUNS}/quickstart_pretrain.gin"
    short = params("STEPS = 3", "OptimizerConfig.warmup_steps = 1", "SftRunConfig.log_every = 1")
    start("experiments.train", "--gin_file", file, "--workdir", workdir, *short)
    return workdir


@pytest.mark.slow
def test_rl_run_trains_evaluates_and_reports(base, tmp_path):
    record = tmp_path / "train.json"
    workdir = tmp_path / "otc"
    run_file = f"{RUNS}/quickstart_otc_grpo.gin"
    start(
        "experiments.train",
        *("--gin_file", run_file, "--workdir", workdir, "--init_from", base / "policy"),
        *("--json", record, *params(*SHORT_RL)),
    )
    figures = json.loads(record.read_text())
    assert figures["last"]["step"] == 1
    assert figures["last"]["tokens/reprefilled_total"] == 0
    assert figures["last"]["mismatch/max_abs_logprob_nats"] < 1e-4
    assert "trajectories" in (workdir / "report.html").read_text()
    assert (workdir / "operative_config.gin").exists()

    results = tmp_path / "results.json"
    policies = [
        ("--policy", f"{name}={workdir / 'policy' if name == 'otc' else base / 'policy'}")
        for name in ("base", "otc")
    ]
    start(
        "experiments.evaluate",
        *("--gin_file", run_file, "--problems", 20, "--json", results),
        *(flag for pair in policies for flag in pair),
        *params("EngineConfig.decode_rows = 16", "RolloutConfig.max_response_tokens = 40"),
    )
    found = json.loads(results.read_text())
    for variant in ("base", "otc"):
        for way in ("greedy", "sampled"):
            part = found["variants"][variant][way]
            assert part["answers"] == 20
            assert 0 <= part["accuracy"] <= 1
            assert set(part["levels"]) == {"one_digit", "two_and_one_digit", "two_digit", "hard"}
    assert set(found["paired"]) == {"otc"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gin_param", "PpoClip.clip_low = 'a'"], "clip_low"),
        (["--gin_file", "gin_configs/algos/gspoo.gin"], "gspoo.gin"),
        (["--init_from", "nowhere"], "there are no weights nowhere: name a Hugging Face directory"),
        (["--gin_param", "RlConfig.renderer = 'retol'"], "no renderer template 'retol'"),
        (["--gin_param", "MeshConfig.tensor = 3"], "does not divide"),
        (["--sandbox", "127.0.0.1:9", *params("SandboxClientConfig.attempts = 1")], "127.0.0.1:9"),
    ],
    ids=["type", "layer", "policy", "renderer", "mesh", "sandbox"],
)
def test_bad_input_is_refused_before_training(flags, message, tmp_path, monkeypatch):
    workdir = ("--workdir", tmp_path / "run")
    flags = ("--gin_file", f"{RUNS}/quickstart_grpo.gin", *workdir, *flags)
    assert message in refusal(monkeypatch, train_entry_point.main, *flags)
    assert not (tmp_path / "run" / "policy").exists()


def test_a_command_ends_at_bad_input_in_one_line(tmp_path):
    flags = ("--workdir", tmp_path / "run", *params("PpoClip.clip_lo = 0.1"))
    run_file = ("--gin_file", f"{RUNS}/quickstart_grpo.gin")
    done = start("experiments.train", *run_file, *flags, check=False)
    assert done.returncode == 1
    assert "clip_low" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_print_config_prints_gin_that_builds_the_same_run_and_writes_no_directory(
    tmp_path, monkeypatch, capsys
):
    flags = ("--gin_file", f"{RUNS}/quickstart_grpo.gin", *params("Schedule.samples = 4"))
    record = tmp_path / "config.json"
    monkeypatch.setattr("sys.argv", ["train", *flags, "--print_config", "--json", str(record)])
    train_entry_point.main()
    listed = tmp_path / "listed.gin"
    listed.write_text(capsys.readouterr().out)
    composed = run_files.load_run(flags[1:2], ["Schedule.samples = 4"])
    assert run_files.load_run([listed]) == composed
    found = json.loads(record.read_text())
    assert found["target"] == "jaxtool.train.rl_config.RlConfig"
    samples = found["values"]["rl_config.Schedule.samples"]
    assert samples == {"value": "4", "from": "--gin_param 'Schedule.samples = 4'"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "listed.gin"]


def test_dry_run_checks_a_run_with_its_sandbox_and_ends_with_an_error_at_a_mistake(
    tmp_path, monkeypatch
):
    flags = (
        "--gin_file",
        f"{RUNS}/quickstart_grpo.gin",
        "--dry_run",
        *params("MeshConfig.fsdp = -1"),
    )
    record = tmp_path / "dry.json"
    workdir = tmp_path / "run"
    done = start("experiments.train", *flags, "--json", record, "--workdir", workdir)
    found = json.loads(record.read_text())
    assert found["is_ok"]
    assert found["error"] is None
    assert {"memory", "sandbox", "question"} <= {check["name"] for check in found["checks"]}
    assert "programs answered as expected" in done.stdout
    assert "[prompt]" in done.stdout
    assert not workdir.exists()
    short = params("EngineConfig.max_tokens = 100")
    said = refusal(monkeypatch, train_entry_point.main, *flags, *short, "--json", record)
    found = json.loads(record.read_text())
    assert not found["is_ok"]
    assert "EngineConfig.max_tokens=100" in found["error"]
    assert found["error"] in said


def test_an_old_flag_is_refused_in_one_line_with_the_new_one(monkeypatch):
    monkeypatch.setattr("sys.argv", ["reproduce", "--arms", "otc_grpo"])
    with pytest.raises(SystemExit, match=r"^error: --arms is an old flag; write --variants$"):
        reproduce.parse()


def test_plan_refuses_what_it_does_not_know_in_one_line(monkeypatch):
    for variable in ("JAX_PLATFORMS", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.setenv(variable, "")  # main sets them: put back what was there
    flags = ("--gin_file", f"{RUNS}/quickstart_grpo.gin", "--topology")
    assert "unknown topology 'v9:2x2'" in refusal(monkeypatch, plan.main, *flags, "v9:2x2")
    one = params("MeshConfig.fsdp = 1")
    assert "does not divide 8 devices" in refusal(monkeypatch, plan.main, *flags, "v5e-8", *one)


def test_processes_share_an_accelerators_memory(tmp_path, monkeypatch):
    """One process unless asked; none of it without a device file, or where only the CPU is wanted."""
    monkeypatch.setattr(entry, "_DEVICES", tmp_path)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "x")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION")
    assert entry.share_accelerator(3) is None
    (tmp_path / "nvidia3").touch()
    assert entry.share_accelerator(None) == 1
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.900"
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION")
    assert entry.share_accelerator(3) == 3
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.300"
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert entry.share_accelerator(3) is None


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings are Linux's")
def test_a_process_on_a_cpu_starts_anew_with_an_allocator_that_keeps_memory(tmp_path):
    code = (
        "import os, pathlib; from jaxtool.cli import entry; "
        f"entry._DEVICES = pathlib.Path({str(tmp_path)!r}); entry.prepare(); "
        "print(os.environ['GLIBC_TUNABLES'])"
    )

    def printed(**settings: str) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        environment |= {"JAX_PLATFORMS": "cpu"} | settings
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command,
            cwd=REPOSITORY_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    assert printed() == entry.allocator()
    assert "arena_max=1:" in entry.allocator()
    assert printed(GLIBC_TUNABLES="glibc.malloc.hugetlb=0") == "glibc.malloc.hugetlb=0"
