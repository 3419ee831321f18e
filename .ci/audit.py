"""Are the lower bounds of setup.py resolvable, and is a package that is installed known to be vulnerable?

python .ci/audit.py    needs uv

Prints what is wrong and ends with 1; prints what could not be looked up and ends with 0; or prints nothing.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from typing import Any

# Extras that a user installs on a CPU; those of accelerators differ from them by jax's own plugins.
EXTRAS = ("cpu", "sandbox", "search", "search-dense", "search-qdrant", "mcp", "hub")
_TIMEOUT_S = 120


def judge(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What pip-audit's JSON says: a line for each vulnerability, and the packages that it could not look up."""
    wrong, unknown = [], []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            unknown.append(one["name"])
            continue
        for found in one["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "none yet"
            wrong.append(f"{one['name']} {one['version']}: {found['id']}, mended in {fixed}")
    return wrong, [name for name in unknown if name != "jaxtool"]  # ours is in no index


def not_run(unknown: list[str]) -> str:
    """The line of .ci/run about packages that could not be looked up; "" where all could."""
    if not unknown:
        return ""
    return f"pip-audit: {len(unknown)} packages, such as {unknown[0]}: no service of known vulnerabilities answers here"


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S)


def main() -> None:
    if shutil.which("uv") is None:
        print("pip-audit and the lower bounds of setup.py: uv cannot be installed here")
        return
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    lowest = call(
        "uv", "pip", "compile", "-q", "--resolution", "lowest-direct", *extras, "setup.py"
    )
    if lowest.returncode:
        sys.exit(f"the lower bounds of setup.py have no solution:\n{lowest.stderr.strip()}")
    site = sysconfig.get_path("purelib")
    flags = ("--path", site, "--format", "json", "--progress-spinner", "off", "--timeout", "10")
    try:
        audit = call("uv", "tool", "run", "pip-audit", *flags)
        report = json.loads(audit.stdout)
    except (json.JSONDecodeError, subprocess.TimeoutExpired):
        print("pip-audit: it cannot be installed here, or its service does not answer")
        return
    wrong, unknown = judge(report)
    if wrong:
        sys.exit("\n".join(wrong))
    if line := not_run(unknown):
        print(line)


if __name__ == "__main__":
    main()
