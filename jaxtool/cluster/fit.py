"""Whether a run fits on a slice, before it is paid for: by a plan that is written down, or by one made now."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxtool.config.places import command_words
from jaxtool.config.settings import changes, settings_of
from jaxtool.plan.chips import Slice
from jaxtool.plan.plan import plan_run
from jaxtool.plan.report import headline
from jaxtool.plan.step import StepPlan, default_assumptions
from jaxtool.train.resume_rules import LENGTH, LOGS, SERVERS
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig

_PLACES = ("HfDirectory.path", "HfTokenizerDirectory.path", "DemonstrationFile.path")
_WITHOUT_SHAPE = frozenset((*_PLACES, *LENGTH, *LOGS, *SERVERS))
_WITH_DATA = ("ProblemFile.", "Layout.")


def check_fits(
    config: RlConfig | SftRunConfig,
    tpu: Slice,
    *,
    records: Path,
    files: Sequence[str],
    without_params: RlConfig | SftRunConfig,
    plans: bool,
    say: Callable[[str], None],
) -> str:
    """One line on why the run may start.

    Args:
      records: folder of plans as `experiments.plan --json` writes them.
      files: gin files of the run, by which its record is known.
      without_params: the run of these files alone. A record is of it, and holds for what differs in places, lengths
        and servers only.
      plans: compile a plan where there is no record and libtpu is installed, which takes minutes.

    Raises:
      ValueError: it does not fit, or its mesh does not divide the slice.
    """
    config.mesh.sizes(tpu.num_devices)
    record = _recorded(records, tpu, files) if _plans_alike(config, without_params) else None
    if record is not None:
        if not record["fits"]:
            advice = "; ".join(record["advice"]) or "take a larger slice"
            raise ValueError(f"{files[0]}: {headline(record)}: {advice}")
        return f"plan: {headline(record)}"
    command = (
        " ".join(command_words("plan")) + " " + " ".join(f"--gin_file {file}" for file in files)
    )
    if not plans or importlib.util.find_spec("libtpu") is None:
        why = "--skip_plan" if not plans else "libtpu is not installed here"
        return f"plan: none was made ({why}); `{command} --topology {tpu.name}` makes one"
    say(f"planning {files[0]} on {tpu.name}: some minutes; --skip_plan leaves it out")
    found = plan_run(
        config,
        tpu.name,
        default_assumptions(config),
    )
    return _verdict(found, files[0])


def _plans_alike(config: RlConfig | SftRunConfig, other: RlConfig | SftRunConfig) -> bool:
    """Whether no difference of two runs changes a program or its memory."""
    found = changes(settings_of(config), settings_of(other))
    return all(one.name in _WITHOUT_SHAPE or one.name.startswith(_WITH_DATA) for one in found)


def _verdict(found: StepPlan, file: str) -> str:
    gib = found.hbm_used / 2**30
    text = f"{found.tpu.name}, {gib:.1f} of {found.tpu.chip.hbm_gib} GiB a device"
    if not found.fits:
        raise ValueError(
            f"{file} does not fit on {text}: {'; '.join(found.advice) or 'take a larger slice'}"
        )
    step = "" if found.step_s is None else f"; a step of about {found.step_s:.0f} s"
    return f"plan: fits on {text}{step}"


def _recorded(folder: Path, tpu: Slice, files: Sequence[str]) -> dict[str, Any] | None:
    """The plan of these files on this slice that is written down."""
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        names = [record["gin_file"], *record.get("overlays", [])]
        if record["topology"] == tpu.name and list(map(_tail, names)) == list(map(_tail, files)):
            return record
    return None


def _tail(name: str) -> tuple[str, ...]:
    """Folder and name: gin_configs/runs/a.gin of one checkout is that of another."""
    return Path(name).parts[-3:]
