"""Runs gcloud. What it refuses is one line, with the command that it refused."""

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Sequence

_ABSENT = ("NOT_FOUND", "not found", "matched no objects")
_LONGEST = 300


class GcloudError(RuntimeError):
    """gcloud ended with an error; one line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command of gcloud and what it is for."""

    why: str
    arguments: tuple[str, ...]  # behind "gcloud"

    def __str__(self) -> str:
        return shlex.join(("gcloud", *self.arguments))


def check_installed() -> None:
    """Raises FileNotFoundError where there is no gcloud."""
    if shutil.which("gcloud") is None:
        raise FileNotFoundError(
            "gcloud is not on PATH: install the Google Cloud CLI (cloud.google.com/sdk/docs/install), then "
            "`gcloud auth login`"
        )


def run(command: Command) -> str:
    """What it prints.

    Raises:
      GcloudError: it ended with an error.
    """
    done = attempt(command)
    if done.returncode:
        raise GcloudError(f"{command.why}: gcloud says {said(done)!r} to `{_short(command)}`")
    return done.stdout.decode("utf-8", "replace")


def find(command: Command) -> str | None:
    """What it prints, None where what it asks for does not exist.

    Raises:
      GcloudError: it ended with another error.
    """
    done = attempt(command)
    if done.returncode and any(word in done.stderr.decode("utf-8", "replace") for word in _ABSENT):
        return None
    if done.returncode:
        raise GcloudError(f"{command.why}: gcloud says {said(done)!r} to `{_short(command)}`")
    return done.stdout.decode("utf-8", "replace")


def attempt(command: Command) -> subprocess.CompletedProcess[bytes]:
    """Runs it; the caller looks at the exit status."""
    check_installed()
    return subprocess.run(
        ["gcloud", *command.arguments], stdin=subprocess.DEVNULL, capture_output=True
    )


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The error in one line: what follows gcloud's "ERROR:", or its last line."""
    text = done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}"
    _, marker, error = text.partition("ERROR:")
    line = " ".join(error.split()) if marker else text.splitlines()[-1]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _short(command: Command) -> str:
    """The command without the scripts that it carries."""
    words = [
        f"{word.partition('=')[0]}=..." if "\n" in word else word for word in command.arguments
    ]
    return shlex.join(("gcloud", *words))


def as_rows(commands: Sequence[Command]) -> list[dict[str, object]]:
    """[{"why", "command": words}]."""
    return [{"why": c.why, "command": ["gcloud", *c.arguments]} for c in commands]
