"""The checks of a host, together. They take no longer than the slowest: 25 s where jax hangs, mostly under 10 s."""

from functools import partial
from pathlib import Path

from jaxtool.cluster import device_checks, host_checks, reach_checks
from jaxtool.cluster.findings import Check

_SERVERS = "start the servers, or mend the addresses (docs/sandbox.md, docs/search.md)"


def checks_of(
    *,
    workdir: Path,
    needs_gib: float,
    sandbox: tuple[str, ...] = (),
    search: tuple[str, ...] = (),
    bucket: str | None = None,
    peers: tuple[str, ...] = (),
) -> list[Check]:
    """What a run on this host would need.

    Args:
      workdir: a directory that need not exist.
      needs_gib: room that the run takes there.
      sandbox: addresses of running servers; none: one is started here, as a run does.
      search: addresses of running servers.
      bucket: a URL such as gs://my-bucket/runs.
      peers: host:port of the coordinator and of whatever else must be reached.
    """
    platform = device_checks.expected_platform()
    extra = device_checks.EXTRA[platform]
    install = f"pip install -e '.[{extra}]'"
    checks = [
        Check(name="python", look=host_checks.check_python, remedy="install Python 3.12"),
        Check(name="versions", look=partial(host_checks.check_versions, extra), remedy=install),
        Check(name="devices", look=partial(device_checks.check_devices, platform), remedy=install),
        Check(name="memory", look=host_checks.check_memory, remedy="Linux is needed"),
        Check(
            name="disk",
            look=partial(host_checks.check_disk, workdir, needs_gib),
            remedy="name a --workdir that can be written",
        ),
        Check(name="clock", look=host_checks.check_clock, remedy="timedatectl set-ntp true"),
        Check(name="limits", look=host_checks.check_limits, remedy="ulimit -n 65536"),
        Check(
            name="sandbox",
            look=partial(reach_checks.check_sandbox, sandbox),
            remedy=_SERVERS if sandbox else "docs/sandbox.md says what it needs",
        ),
    ]
    if search:
        look = partial(reach_checks.check_search, search)
        checks.append(Check(name="search", look=look, remedy=_SERVERS))
    if bucket is not None:
        look = partial(reach_checks.check_bucket, bucket)
        remedy = "mend the name, or give this host's account access"
        checks.append(Check(name="bucket", look=look, remedy=remedy))
    checks += [
        Check(name="peer", look=partial(reach_checks.check_peer, address), remedy="write host:port")
        for address in peers
    ]
    return checks
