"""`--selftest`: what this machine offers, how fast it is, and whether the walls hold."""

import asyncio
import dataclasses
import pathlib
import platform
import re
import time

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import canaries, probe
from sandbox_server.front.engine import Engine, Program
from sandbox_server.front.pool import Pool
from sandbox_server.inside.lockdown import Tier

_SPEED_SECONDS = 2.0
_SPEED_PROGRAMS = {
    "print": "print(1 + 1)",
    "sympy solve": "import sympy as sp\nx = sp.Symbol('x')\nprint(sp.solve(x**2 - 5*x + 6, x))",
}
_ATTACK_LIMITS = LimitSet(cpu_ms=500, wall_ms=3000, memory_bytes=192 << 20, scratch_bytes=16 << 20)


async def _speed(engine: Engine, code: str) -> float:
    """Executions per second with twice as many callers as slots."""
    stop = time.monotonic() + _SPEED_SECONDS
    done = 0

    async def caller(name: int) -> None:
        nonlocal done
        while time.monotonic() < stop:
            program = Program(code=code, limits=engine.config.default_limits)
            await engine.run(program, f"caller-{name}")
            done += 1

    start = time.monotonic()
    await asyncio.gather(*(caller(i) for i in range(2 * engine.config.slots)))
    return done / (time.monotonic() - start)


async def _attack_files(engine: Engine, folder: pathlib.Path) -> list[canaries.Verdict]:
    """Runs a folder of attack files (see tests/sandbox_server/attacks); aims them at nothing."""
    verdicts = []
    for path in sorted(folder.glob("*.py.txt")):
        code = re.sub(r"@PORT@|@SERVER_PID@", "1", path.read_text("utf-8"))
        code = re.sub(r"@(CANARY|UNIX)@", "/nonexistent/target", code)
        expected = re.search(r"^# Expect: (.+)$", code, re.MULTILINE)
        names = {n.strip() for n in expected.group(1).split("|")} if expected else set()
        outcome, _ = await engine.run(Program(code=code, limits=_ATTACK_LIMITS), "attack")
        text = outcome.stdout.text()
        is_contained = "ESCAPED" not in text and outcome.status.name in names
        detail = f"{outcome.status.name}, expected {sorted(names)}, {text[-200:]!r}"
        verdicts.append(
            canaries.Verdict(
                name=path.name.removesuffix(".py.txt"), is_contained=is_contained, detail=detail
            )
        )
    return verdicts


async def run(config: ServerConfig, attack_folder: str) -> int:
    """Prints the findings; 0 if the server may be used."""
    tier, remarks = probe.choose(config)
    print(f"tier: {tier}")
    for remark in remarks:
        print(f"remark: {remark}")
    pool = Pool(config, tier)
    engine = Engine(config, pool)
    start = time.monotonic()
    await pool.start()
    try:
        facts = pool.facts
        print(f"landlock ABI: {facts['landlock_abi']}, architecture: {platform.machine()}")
        packages = ", ".join(f"{k} {v}" for k, v in sorted(facts["packages"].items()))
        print(f"python {platform.python_version()}, {packages}")
        print(f"warm after {time.monotonic() - start:.1f} s, {config.slots} slots")
        print(f"default limits: {dataclasses.asdict(config.default_limits)}")
        print(f"maximum limits: {dataclasses.asdict(config.maximum_limits)}")
        await canaries.check_works(engine)
        for name, code in _SPEED_PROGRAMS.items():
            print(f"{name}: {await _speed(engine, code):.0f} executions/s")
        verdicts = [] if tier is Tier.NONE else await canaries.try_attacks(engine)
        if attack_folder and tier is not Tier.NONE:
            verdicts += await _attack_files(engine, pathlib.Path(attack_folder))
    except canaries.SelfTestFailed as error:
        print(f"FAILED: {error}")
        return 1
    finally:
        await pool.stop()
    escaped = [verdict for verdict in verdicts if not verdict.is_contained]
    for verdict in escaped:
        print(f"FAILED: attack {verdict.name!r}: {verdict.detail}")
    print(f"attacks contained: {len(verdicts) - len(escaped)} of {len(verdicts)}")
    return 1 if escaped else 0
