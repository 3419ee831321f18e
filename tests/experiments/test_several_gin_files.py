"""Plan and evaluate take several --gin_file, as train does: overlays win over the run file."""

import pytest

from jaxtool.cli import evaluate, plan
from jaxtool.plan import plan as planning
from jaxtool.study import evaluation_plan

RUN = "gin_configs/runs/quickstart_grpo.gin"
OVER = "from __gin__ import dynamic_registration\nfrom jaxtool.train import rl_config\n"


class Caught(Exception):
    """Carries the configuration that an entry point built."""


def catch(config, *_, **__):
    raise Caught(config)


@pytest.mark.parametrize(
    ("entry_point", "module", "name", "flags"),
    [
        (plan, planning, "plan_run", ("--topology", "v5e-8")),
        (evaluate, evaluation_plan, "plan_evaluation", ("--policy", "mine=runs/mine/policy")),
    ],
    ids=["plan", "evaluate"],
)
def test_overlays_win_over_the_run_file(entry_point, module, name, flags, tmp_path, monkeypatch):
    for variable in ("JAX_PLATFORMS", "JAX_ENABLE_COMPILATION_CACHE"):
        monkeypatch.setenv(variable, "")  # main sets them: put back what was there
    monkeypatch.setattr(module, name, catch)
    over = {"steps": 7, "samples": 5}
    for field, value in over.items():
        (tmp_path / f"{field}.gin").write_text(OVER + f"rl_config.Schedule.{field} = {value}\n")

    def config_of(*files):
        given = [flag for file in (RUN, *files) for flag in ("--gin_file", str(file))]
        monkeypatch.setattr("sys.argv", [name, *given, *flags])
        with pytest.raises(Caught) as caught:
            entry_point.main()
        return caught.value.args[0]

    assert config_of().engine.numerics.weights == "dtype"
    assert config_of("gin_configs/decoders/int8.gin").engine.numerics.weights == "int8"
    schedule = config_of(tmp_path / "steps.gin", tmp_path / "samples.gin").schedule
    assert (schedule.steps, schedule.samples) == (7, 5)
