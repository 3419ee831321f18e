"""`--log KIND[:PROJECT[/NAME]]`: which tracker, and whether it can be used here.

Checked before weights are read: its package is installed, and W&B has a key or is offline. Nothing is imported or
asked over the network. Not covered: what a tracker then does (`guarded` and the module of each).
"""

import dataclasses
import importlib.util
import netrc
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["wandb", "mlflow", "trackio"]
_SPELLINGS = "wandb:PROJECT[/NAME], mlflow[:EXPERIMENT[/NAME]] or trackio:PROJECT[/NAME]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackerSpec:
    """One --log flag."""

    kind: Kind
    project: str = ""  # MLflow's experiment; empty: the tracker's default
    name: str = ""  # of the run; empty: after its work directory

    def __str__(self) -> str:
        return (
            self.kind + f":{self.project}" * bool(self.project) + f"/{self.name}" * bool(self.name)
        )


def parse_tracker(text: str) -> TrackerSpec:
    """The flag's text, such as "wandb:tools/first try".

    Raises:
      ValueError: no such tracker, or no project; one line.
    """
    kind, _, place = text.partition(":")
    project, _, name = place.partition("/")
    if kind not in get_args(Kind):
        raise ValueError(f"--log {text}: no tracker {kind!r}; write {_SPELLINGS}")
    if not project and (kind != "mlflow" or name):
        raise ValueError(f"--log {text}: names no project; write {_SPELLINGS}")
    return TrackerSpec(kind=kind, project=project, name=name)  # type: ignore[arg-type]


def check_trackers(
    specs: Sequence[TrackerSpec], environment: Mapping[str, str] = os.environ
) -> None:
    """Raises ValueError if one is there twice, is not installed or, for W&B, has no key."""
    for spec in specs:
        if specs.count(spec) > 1:
            raise ValueError(f"--log {spec} is given twice: leave one out")
        if importlib.util.find_spec(spec.kind) is None:
            raise ValueError(
                f"--log {spec}: {spec.kind} is not installed: pip install {spec.kind}, or pip install "
                "-e '.[trackers]' for all three, or leave the flag out"
            )
        if spec.kind == "wandb" and not _can_log_in(environment):
            raise ValueError(
                f"--log {spec}: W&B has no key: run `wandb login` or set WANDB_API_KEY; "
                "WANDB_MODE=offline keeps the run in its work directory, for `wandb sync`"
            )


def _can_log_in(environment: Mapping[str, str]) -> bool:
    if environment.get("WANDB_MODE", "online") not in ("online", "shared"):
        return True
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    base = environment.get("WANDB_BASE_URL", "https://api.wandb.ai")
    host = urllib.parse.urlparse(base).hostname or ""
    try:
        file = environment.get("NETRC") or str(Path.home() / ".netrc")
        if netrc.netrc(file).authenticators(host) is not None:
            return True
    except (OSError, netrc.NetrcParseError):
        pass
    folder = environment.get("WANDB_CONFIG_DIR") or str(Path.home() / ".config" / "wandb")
    settings = Path(folder) / "settings"
    return settings.is_file() and "api_key" in settings.read_text(
        encoding="utf-8", errors="replace"
    )
