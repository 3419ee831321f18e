"""The sandbox's Python in a menu, on the servers of `RlConfig.sandbox`.

With state = "call" each program starts from nothing, which is ReTool's tool. With state = "trajectory" a trajectory
has one interpreter, so variables last from call to call (`interpreter` says what becomes of them when something
breaks). Sessions are opened at a trajectory's first call and closed with it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jaxtool.core.calls import ToolSpec
from jaxtool.core.ranges import check_range
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.code_tool import PYTHON_SPEC, CodeTool
from jaxtool.tools.interpreter import OnLostSession, SessionRules

State = Literal["call", "trajectory"]
LASTING_STATE = (
    "Runs a Python program and returns what it prints. Variables last from one program to the next."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PythonSandbox:
    """Called as `python`. Limits of a program are those of SandboxClientConfig."""

    description: str = ""  # for the prompt; "": what `state` means, in a sentence
    max_observation_tokens: int | None = None  # head kept; None: the renderer's max_output_chars
    state: State = "call"  # how long variables last
    # The rest needs state = "trajectory".
    # A program that breaks a limit is undone; without, it costs the trajectory all variables, and each program
    # starts some milliseconds earlier.
    has_checkpoints: bool = True
    # Seconds between two programs of a trajectory. Longer than it takes to decode what stands between them, and
    # with Schedule.max_staleness than an update. A session of a run that was killed stays as long.
    session_idle_s: float = 600.0
    # A session that its server lost: the trajectory's programs run again elsewhere, and must say the same; or the
    # trajectory is masked. Replayed by default: a lost server would else mask every trajectory that it served.
    on_lost_session: OnLostSession = "replay"
    max_replays: int = 2  # of a trajectory; one more loss masks it
    max_replay_s: float = 300.0  # that all replays of a trajectory may take

    def __post_init__(self) -> None:
        for name, kind in (("state", State), ("on_lost_session", OnLostSession)):
            value, choices = getattr(self, name), get_args(kind)
            if value not in choices:
                wanted = " or ".join(map(repr, choices))
                raise ValueError(f"PythonSandbox.{name}={value!r} must be {wanted}")
        if self.max_observation_tokens is not None:
            check_range(self, "max_observation_tokens", least=1)
        check_range(self, "session_idle_s", "max_replay_s", above=0)
        check_range(self, "max_replays", least=1)
        self._check_acts()

    def _check_acts(self) -> None:
        """Raises ValueError for a setting that can do nothing."""
        replays = ("max_replays", "max_replay_s")
        sessions = ("has_checkpoints", "session_idle_s", "on_lost_session", *replays)
        for names, is_off, other in (
            (
                sessions,
                self.state == "call",
                "state='call': set state = 'trajectory', or leave it out",
            ),
            (replays, self.on_lost_session == "mask", "on_lost_session='mask': leave it out"),
        ):
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                if is_off and field.name in names and value != field.default:
                    raise ValueError(
                        f"PythonSandbox.{field.name}={value!r} does nothing with {other}"
                    )

    @property
    def uses_sandbox(self) -> bool:
        return True

    @property
    def rules(self) -> SessionRules | None:
        """None: programs have no state."""
        if self.state == "call":
            return None
        names = [field.name for field in dataclasses.fields(SessionRules)]
        return SessionRules(**{name: getattr(self, name) for name in names})

    @property
    def spec(self) -> ToolSpec:
        default = PYTHON_SPEC.description if self.state == "call" else LASTING_STATE
        return dataclasses.replace(
            PYTHON_SPEC,
            description=self.description or default,
            max_observation_tokens=self.max_observation_tokens,
        )

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        """None here: the servers have a preflight of their own, which asks a session of each as well."""
        return []

    def open(self, runner: CodeRunner | None = None) -> CodeTool:
        if runner is None:
            raise ValueError("PythonSandbox needs a sandbox, and none was opened")
        return CodeTool(runner, self.spec, self.rules)
