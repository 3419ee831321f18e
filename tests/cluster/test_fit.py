"""The fit check before a slice is paid for: a plan that is written down, one made now, or none, said each time."""

import json

import pytest

from jaxtool.cluster import fit
from jaxtool.cluster.tpu_types import tpu_type
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.train import run_files

FILE = "gin_configs/runs/torl_1_5b_v5e_8.gin"
RECORDS = REPOSITORY_ROOT / "docs" / "plans"
V5E_8 = tpu_type("v5e-8").slice


def fits(params=(), tpu=V5E_8, files=(FILE,), records=RECORDS, plans=False):
    said = []
    line = fit.check_fits(
        run_files.load_run(files, params),
        tpu,
        records=records,
        files=files,
        without_params=run_files.load_run(files),
        plans=plans,
        say=said.append,
    )
    return line, said


@pytest.mark.parametrize(
    "param",
    ["MODEL_DIR = 'gs://b/weights'", "DATA = 'gs://b/x.parquet'", "Schedule.checkpoint_every = 1"],
)
def test_places_and_logs_do_not_change_a_plan(param):
    assert fits([param])[0].startswith("plan: v5e:2x4 fits, ")


def test_what_changes_programs_needs_a_plan_of_its_own():
    line, _ = fits(["GrpoConfig.micro_batch_rows = 8"])
    assert line == (
        f"plan: none was made (--skip_plan); `python -m experiments.plan --gin_file {FILE} --topology "
        "v5e:2x4` makes one"
    )
    assert "none was made" in fits(files=(FILE, "gin_configs/algos/gspo.gin"))[0]


def test_a_plan_that_does_not_fit_is_refused_with_its_advice(tmp_path):
    record = json.loads((RECORDS / "torl_1_5b_v5e_8.json").read_text())
    record |= {"fits": False, "advice": ["RlConfig.unloads_decoder = True"]}
    (tmp_path / "a.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"does not fit, .*RlConfig.unloads_decoder = True"):
        fits(records=tmp_path)


def test_a_mesh_that_does_not_divide_the_slice_is_refused_at_once():
    with pytest.raises(ValueError, match="does not divide 8 devices"):
        fits(["MeshConfig.fsdp = 3"])


def test_a_plan_is_made_where_there_is_no_record_and_a_compiler(tmp_path, monkeypatch):
    class Made:
        hbm_used, fits, advice, step_s = 2**34, True, (), 61.2
        tpu = V5E_8

    monkeypatch.setattr(fit.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(fit, "plan_run", lambda config, topology, assumed: Made)
    line, said = fits(records=tmp_path, plans=True)
    assert line == "plan: fits on v5e:2x4, 16.0 of 15.75 GiB a device; a step of about 61 s"
    assert "planning" in said[0]
    monkeypatch.setattr(Made, "fits", False)
    with pytest.raises(ValueError, match=r"does not fit on v5e:2x4, .*: take a larger slice"):
        fits(records=tmp_path, plans=True)
