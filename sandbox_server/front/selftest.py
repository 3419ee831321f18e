"""`--selftest`: what this machine offers, how fast it is, and whether the walls hold.

`--json PATH` writes the findings with the keys of `Findings`.
"""

import asyncio
import dataclasses
import json
import os
import pathlib
import platform
import re
import time

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import canaries, probe, session_attacks, start_checks, version
from sandbox_server.front.engine import Engine, Program
from sandbox_server.front.pool import Pool
from sandbox_server.inside.lockdown import Tier

ATTACKS = pathlib.Path(__file__).parents[1] / "attacks"
_SPEED_SECONDS = 2.0
_SPEED_PROGRAMS = {
    "print": "print(1 + 1)",
    "sympy solve": "import sympy as sp\nx = sp.Symbol('x')\nprint(sp.solve(x**2 - 5*x + 6, x))",
}
_CPU_MS = 250
_FILLING_CPU_MS = 5000  # the kernel's clearing of pages counts
_WALL_MS = 30_000  # far away, so that a busy machine does not change a status
OF_CLOSED_DIRECTORIES = "files_closed_directories.py.txt"
_SHORT_WALL_MS = 500  # for programs that sleep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """What the self-test found out."""

    version: str  # of this package
    tier: str  # namespace, landlock or none
    remarks: list[str]  # what is weaker than it could be, and why
    landlock_abi: int  # 0: not there
    architecture: str
    python_version: str
    packages: dict[str, str]
    start_s: float  # until the fork servers were warm
    concurrency: int
    default_limits: dict[str, int]
    maximum_limits: dict[str, int]
    executions_per_s: dict[str, float]  # by program, with 2 x concurrency callers
    attacks: list[canaries.Verdict]  # name, is_contained, detail; empty in tier none

    @property
    def escaped(self) -> list[canaries.Verdict]:
        return [verdict for verdict in self.attacks if not verdict.is_contained]


async def _speed(engine: Engine, code: str) -> float:
    """Executions per second with 2 x concurrency callers."""
    stop = time.monotonic() + _SPEED_SECONDS
    done = 0

    async def caller(name: int) -> None:
        nonlocal done
        while time.monotonic() < stop:
            program = Program(code=code, limits=engine.config.default_limits)
            await engine.run(program, f"caller-{name}")
            done += 1

    start = time.monotonic()
    await asyncio.gather(*(caller(i) for i in range(2 * engine.config.concurrency)))
    return done / (time.monotonic() - start)


def statuses(code: str, key: str = "Expect") -> set[str]:
    """The names after `# key:` in an attack file's header; empty where there is no such line."""
    match = re.search(rf"^# {key}: (.+)$", code, re.MULTILINE)
    return {name.strip() for name in match.group(1).split("|")} if match else set()


def attack_limits(expected: set[str]) -> LimitSet:
    """Limits of an attack that may end in one of the statuses `expected`: that one is reached first."""
    fills_memory = "MEMORY_LIMIT" in expected and "CPU_LIMIT" not in expected
    return LimitSet(
        cpu_ms=_FILLING_CPU_MS if fills_memory else _CPU_MS,
        wall_ms=_SHORT_WALL_MS if "WALL_LIMIT" in expected else _WALL_MS,
        memory_bytes=192 << 20,
        scratch_bytes=16 << 20,
    )


async def _attack(engine: Engine, path: pathlib.Path) -> canaries.Verdict:
    """Runs one attack file, aimed at nothing; its header says which statuses are right."""
    code = re.sub(r"@PORT@|@SERVER_PID@", "1", path.read_text("utf-8"))
    code = re.sub(r"@(CANARY|UNIX)@", "/nonexistent/target", code)
    names = statuses(code)
    outcome, _ = await engine.run(Program(code=code, limits=attack_limits(names)), "attack")
    text = outcome.stdout.text()
    return canaries.Verdict(
        name=path.name.removesuffix(".py.txt"),
        is_contained="ESCAPED" not in text and outcome.status.name in names,
        detail=f"{outcome.status.name}, expected {sorted(names)}, {text[-200:]!r}",
    )


async def _attacks(engine: Engine, more: str) -> list[canaries.Verdict]:
    """The canaries, this package's attack files and those of the folder `more`."""
    folders = [ATTACKS, pathlib.Path(more)] if more else [ATTACKS]
    paths = [path for folder in folders for path in sorted(folder.glob("*.py.txt"))]
    if not all(any(folder.glob("*.py.txt")) for folder in folders):
        raise canaries.SelfTestFailed(f"no attack files (*.py.txt) in one of {folders}")
    places = asyncio.Semaphore(engine.config.concurrency)  # never a full queue

    async def attack(path: pathlib.Path) -> canaries.Verdict:
        async with places:
            return await _attack(engine, path)

    if engine.pool.facts["keeps_read_capability"]:  # a remark says what such programs may see
        paths = [path for path in paths if path.name != OF_CLOSED_DIRECTORIES]
    verdicts = await canaries.try_attacks(engine)
    verdicts += await asyncio.gather(*(attack(path) for path in paths))
    return verdicts + await session_attacks.attacks(engine)


async def find(config: ServerConfig, more_attacks: str = "") -> Findings:
    """Starts fork servers and tries everything. Raises canaries.SelfTestFailed if nothing runs."""
    start_checks.check_process(config)
    tier, remarks = probe.choose(config)
    pool = Pool(config, tier)
    engine = Engine(config, pool)
    start = time.monotonic()
    await pool.start()
    start_s = time.monotonic() - start
    try:
        await canaries.check_works(engine)
        return Findings(
            version=version.version(),
            tier=str(tier),
            remarks=[*remarks, *pool.facts["remarks"]],
            landlock_abi=pool.facts["landlock_abi"],
            architecture=platform.machine(),
            python_version=platform.python_version(),
            packages=pool.facts["packages"],
            start_s=round(start_s, 2),
            concurrency=config.concurrency,
            default_limits=dataclasses.asdict(config.default_limits),
            maximum_limits=dataclasses.asdict(config.maximum_limits),
            executions_per_s={
                name: round(await _speed(engine, code), 1) for name, code in _SPEED_PROGRAMS.items()
            },
            attacks=[] if tier is Tier.NONE else await _attacks(engine, more_attacks),
        )
    finally:
        await pool.stop()


def _print(findings: Findings) -> None:
    print(f"sandbox_server {findings.version}, tier: {findings.tier}")
    for remark in findings.remarks:
        print(f"remark: {remark}")
    print(f"landlock ABI: {findings.landlock_abi}, architecture: {findings.architecture}")
    packages = ", ".join(f"{name} {version}" for name, version in sorted(findings.packages.items()))
    print(f"python {findings.python_version}, {packages}")
    print(f"warm after {findings.start_s:.1f} s, concurrency {findings.concurrency}")
    print(f"default limits: {findings.default_limits}")
    print(f"maximum limits: {findings.maximum_limits}")
    for name, rate in findings.executions_per_s.items():
        print(f"{name}: {rate:.0f} executions/s")
    for verdict in findings.attacks:
        if verdict.is_contained:
            print(f"contained: {verdict.name}")
    for verdict in findings.escaped:
        print(f"FAILED: attack {verdict.name!r}: {verdict.detail}")
    if findings.attacks:
        contained = len(findings.attacks) - len(findings.escaped)
        print(f"attacks contained: {contained} of {len(findings.attacks)}")
    else:
        print("attacks not tried: there is no isolation")


async def run(config: ServerConfig, more_attacks: str, json_path: str) -> int:
    """Prints the findings; 0 if the server may be used."""
    try:
        findings = await find(config, more_attacks)
    except canaries.SelfTestFailed as error:
        print(f"FAILED: {error}")
        return 1
    _print(findings)
    if json_path:
        part = pathlib.Path(json_path + ".part")
        part.write_text(json.dumps(dataclasses.asdict(findings), indent=2) + "\n", "utf-8")
        os.replace(part, json_path)
    return 1 if findings.escaped else 0
