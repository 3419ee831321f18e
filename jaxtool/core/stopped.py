"""How a run ends that was told to stop. Light, so that entry points know it without jax."""

import os

STATUS = "JAXTOOL_STOP_STATUS"  # for engines that take status 0 for the end of the run and restart others


class Stopped(SystemExit):
    """The run was told to stop and has: status 0, because the same command resumes it, or what JAXTOOL_STOP_STATUS says."""

    def __init__(self) -> None:
        super().__init__(stop_status())


def stop_status() -> int:
    """Exit status of a run that was told to stop, 0..255."""
    text = os.environ.get(STATUS, "0")
    return int(text) if text.isdecimal() and int(text) < 256 else 0
