"""A handful of attacks that a server tries on itself before it says SERVING. The full set is a test.

Each prints `contained` when the wall held.
"""

import dataclasses

from sandbox_server.config import LimitSet
from sandbox_server.front.engine import Engine, Program
from sandbox_server.front.execution import Status
from sandbox_server.inside.lockdown import Tier

_TRY = """
import ctypes, os, signal, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def attack():
{body}
try:
    attack()
    print("ESCAPED")
except OSError:
    print("contained")
"""
_ATTACKS = {
    "host file": "    open('/etc/passwd').read()",
    "process table": "    os.listdir('/proc')",
    "network": "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "unix socket": "    socket.socket(socket.AF_UNIX)",
    "fork": "    if os.fork() == 0: os._exit(0)",
    "exec": "    subprocess.run(['/bin/true'])",
    "signal": "    os.kill(os.getppid(), 0)",
    "write outside": "    open(os.__file__, 'a').close()",
    "namespace": "    if libc.unshare(0x10000000) != 0: raise OSError",
    "memory file": "    os.memfd_create('x')",
}


class SelfTestFailed(RuntimeError):
    """This server must not serve."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """One canary's outcome."""

    name: str
    is_contained: bool
    detail: str


async def _run(engine: Engine, code: str) -> tuple[Status, str, str]:
    limits = LimitSet(cpu_ms=5000, wall_ms=20_000)
    outcome, _ = await engine.run(Program(code=code, limits=limits), "self-test")
    return outcome.status, outcome.stdout.text(), outcome.stderr.text()


async def check_works(engine: Engine) -> None:
    """A program that uses each preloaded package gives the right answer."""
    code = (
        "import numpy, scipy.optimize, sympy\nx = sympy.Symbol('x')\n"
        "print(sympy.solve(x - 2, x), numpy.arange(3).sum(), "
        "round(scipy.optimize.brentq(lambda t: t - 1, 0, 3), 3))"
    )
    status, stdout, stderr = await _run(engine, code)
    if status is not Status.OK or stdout != "[2] 3 1.0\n":
        raise SelfTestFailed(f"self-test: {status.name}, {stdout!r}, {stderr[-300:]!r}")


async def try_attacks(engine: Engine) -> list[Verdict]:
    """All canaries, one after the other."""
    verdicts = []
    for name, body in _ATTACKS.items():
        status, stdout, stderr = await _run(engine, _TRY.format(body=body))
        is_contained = status is Status.OK and stdout == "contained\n"
        detail = f"{status.name} {stdout!r} {stderr[-200:]!r}"
        verdicts.append(Verdict(name=name, is_contained=is_contained, detail=detail))
    return verdicts


async def check(engine: Engine) -> None:
    """Raises SelfTestFailed unless the server works and every canary is contained."""
    await check_works(engine)
    if engine.pool.tier is Tier.NONE:
        return
    for verdict in await try_attacks(engine):
        if not verdict.is_contained:
            raise SelfTestFailed(f"canary {verdict.name!r} got out: {verdict.detail}")
