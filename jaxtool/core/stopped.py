"""How a run ends that was told to stop. Light, so that entry points know it without jax."""


class Stopped(SystemExit):
    """The run was told to stop and has: status 0, because the same command resumes it."""

    def __init__(self) -> None:
        super().__init__(0)
