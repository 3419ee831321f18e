"""Finds the strongest isolation tier that works here, by locking a child in each."""

import contextlib
import os
import signal
import subprocess

from sandbox_server.config import ServerConfig
from sandbox_server.front.fork_server import ENVIRONMENT, command
from sandbox_server.inside import linux
from sandbox_server.inside.lockdown import Tier

_PROBE_TIMEOUT_S = 60


class NoIsolation(Exception):
    """No tier that may be used works on this machine."""


def works(tier: Tier, scratch_bytes: int) -> str:
    """Empty if `tier` works here, otherwise why not."""
    setup = {
        "tier": tier,
        "fd": -1,
        "parent": os.getpid(),
        "scratch_bytes": scratch_bytes,
        "is_probe": True,
        "with_scipy": False,
    }
    # Not to a pipe: a helper that the probe left behind would hold that open. Nor to a file on a disk,
    # for a container may have none to write on.
    with open(os.memfd_create("probe"), "w+b") as said:
        process = subprocess.Popen(
            command(setup),
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = process.wait(_PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"no answer in {_PROBE_TIMEOUT_S} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if code == 0:
        return ""
    return _explained(lines[-1][-500:]) if lines else f"exit {code}"


def _explained(reason: str) -> str:
    """A refusal of the kernel in words, where it is one that many machines have."""
    if f"unshare({linux.CLONE_NEWUSER:#x})" not in reason:
        return reason
    return f"user namespaces are refused here (sysctl user.max_user_namespaces, or a profile): {reason}"


def choose(config: ServerConfig) -> tuple[Tier, list[str]]:
    """Tier to run in, and remarks on stronger ones that do not work. Raises NoIsolation."""
    if config.isolation == "none":
        return Tier.NONE, ["isolation is off: programs run with this server's rights"]
    if config.isolation == "auto":
        candidates = [Tier.NAMESPACE, Tier.LANDLOCK]
    else:
        candidates = [Tier(config.isolation)]
    remarks = []
    for tier in candidates:
        reason = works(tier, config.default_limits.scratch_bytes)
        if not reason:
            return tier, remarks
        remarks.append(f"tier {tier} does not work here: {reason}")
    raise NoIsolation(
        "; ".join(remarks) + "; --isolation=none runs without isolation, for trusted code only"
    )
