"""README's commands start on 1, 2, 4 and 8 devices and use what divides; a small quickstart ends with its tables."""

import json

import jax
import pytest
from helpers.smollm2 import smollm2_or_skip
from test_entry_points import params, refusal, start

from jaxtool.cli import quickstart
from jaxtool.config import loader
from jaxtool.parallel.mesh import make_mesh
from jaxtool.train import devices
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import check_mesh

RUNS = "gin_configs/runs"
OF_README = {  # files of README's commands, and the devices of 1, 2, 4 and 8 that each uses
    "quickstart_pretrain": ([], [1, 1, 1, 1]),
    "quickstart_cold_start": ([], [1, 1, 1, 1]),
    "quickstart_grpo": ([], [1, 2, 4, 8]),
    "quickstart_otc_grpo": ([], [1, 2, 4, 8]),
    "gspo": (["gin_configs/algos/gspo.gin"], [1, 2, 4, 8]),
}
REAL = {"smollm2_products": ([], [1, 1, 1, 1])}  # gradient blocks of one row
SMALL = (
    "Schedule.problems_per_step = 4",
    "Schedule.samples = 2",
    "EngineConfig.cache_rows = 16",
    "EngineConfig.decode_rows = 8",
    "EngineConfig.prefill_rows = 8",
    "RolloutConfig.max_response_tokens = 24",
)


@pytest.mark.parametrize(
    "name", [*OF_README, *(pytest.param(name, marks=pytest.mark.real_model) for name in REAL)]
)
def test_runs_of_the_readme_find_their_mesh(name, capsys):
    over, wanted = (OF_README | REAL)[name]
    if name in REAL:
        smollm2_or_skip()
    run = "quickstart_grpo" if over else name
    files = [f"{RUNS}/{run}.gin", *over]
    config = loader.load(loader.target_of(files[0]), files=files)
    model = config.policy.model_config()
    check = devices.check_mesh if isinstance(config, RlConfig) else check_mesh
    for count, used in zip((1, 2, 4, 8), wanted, strict=True):
        mesh = make_mesh(
            config.mesh, jax.devices()[:count], lambda mesh: check(mesh, config, model)
        )
        assert mesh.size == used
        assert ("idle" in capsys.readouterr().out) is (used < count)


@pytest.fixture(scope="module")
def small_quickstart(tmp_path_factory):
    """Every stage of the quickstart on eight devices, one step each."""
    workdir = tmp_path_factory.mktemp("quickstart")
    done = start(
        "experiments.quickstart",
        *("--workdir", workdir, "--steps", 1, "--problems", 8, "--json", workdir / "copy.json"),
        *params(*SMALL),
        flags_of_xla="--xla_force_host_platform_device_count=8",
    )
    return workdir, done.stdout


@pytest.mark.nightly
@pytest.mark.slow
def test_a_small_quickstart_on_eight_devices_ends_with_its_tables(small_quickstart):
    workdir, said = small_quickstart
    assert "devices: 0-7 of 8 (fsdp=8)" in said
    assert "devices: 0 of 8; idle: 1-7, since micro_batch_rows=11" in said
    assert "Test set, all levels" in said
    assert "OTC-GRPO against GRPO, greedy" in said
    results = json.loads((workdir / "results.json").read_text())
    assert results == json.loads((workdir / "copy.json").read_text())
    for variant in ("cold_start", "grpo", "otc_grpo"):
        assert results["variants"][variant]["greedy"]["answers"] == 8
    for stage in ("pretrain", "cold_start", "grpo", "otc_grpo"):
        rows = (workdir / stage / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == [0]
    assert "Schedule.samples = 2" in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--steps", 0), "--steps 0 must be >= 1"),
        (("--gin_param", "Schedule.sampels = 2"), "sampels"),
    ],
)
def test_wrong_flags_of_the_quickstart_end_in_one_line(flags, message, tmp_path, monkeypatch):
    workdir = ("--workdir", tmp_path / "q")
    assert message in refusal(monkeypatch, quickstart.main, *workdir, *flags)
    assert not (tmp_path / "q").exists()
