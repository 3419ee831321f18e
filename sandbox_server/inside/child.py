"""One execution: waits for its job on descriptor 3, locks itself, runs the program, reports.

Descriptors: 0 /dev/null or the request's stdin, 1 and 2 pipes, 3 the front end's socket.
"""

import base64
import fcntl
import gc
import json
import os
import signal
import sys

from sandbox_server.inside import exits, lockdown, namespaces, preload, runner

CONTROL = 3
EXIT_BROKEN = 117  # the child failed before the program began
_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
STARTED = b"\n"  # sent just before the program runs


def take_descriptors(fds: list[int], keep: int) -> None:
    """Moves stdout, stderr and control to 1, 2 and 3 and closes all others but `keep`."""
    # A descriptor of our own: flags of a shared /dev/null would be a channel between programs.
    null = os.open(os.devnull, os.O_RDONLY)
    for target, fd in enumerate((null, *fds)):
        os.dup2(fd, target)
    close_above(4, keep)


def close_above(first: int, keep: int) -> None:
    """Closes all descriptors from `first` on, except `keep`."""
    if keep >= first:
        os.closerange(first, keep)
    os.closerange(max(first, keep + 1), 4096)


def receive() -> dict:
    """Next job: four bytes of length, then JSON. Exits if the front end is gone."""
    size = int.from_bytes(_read_exactly(4), "big")
    return json.loads(_read_exactly(size))


def _read_exactly(size: int) -> bytes:
    chunks = []
    while size:
        chunk = os.read(CONTROL, min(size, 1 << 16))
        if not chunk:
            os._exit(0)
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def set_stdin(text: str) -> None:
    """Feeds `text` to descriptor 0 through sealed memory."""
    if not text:
        return
    data = text.encode("utf-8", "replace")
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    while data:
        data = data[os.write(fd, data) :]
    # Or a program could write to it: memory that no limit of its own counts.
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALED)
    os.lseek(fd, 0, os.SEEK_SET)
    os.dup2(fd, 0)
    os.close(fd)


def _write_files(files: dict[str, str]) -> None:
    """Writes files, given in base64. Ends this process with FILES_NOT_WRITTEN and one line where that fails."""
    for name, content in files.items():
        try:
            runner.write_files({name: base64.b64decode(content)})
        except (OSError, MemoryError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no memory for it"
            os.write(2, f"file {name[:60]!a} cannot be written: {reason}".encode())
            os._exit(exits.FILES_NOT_WRITTEN)


def limits_of(job: dict) -> lockdown.Limits:
    return lockdown.Limits(
        cpu_s=job["cpu_s"],
        memory_bytes=job["memory_bytes"],
        scratch_bytes=job["scratch_bytes"],
        threads=job["threads"],
    )


def send_report(report: dict[str, object], value_chars: int) -> None:
    """One line of JSON; a long value is cut here, the front end reads no more than it must."""
    value = report.get("value")
    if isinstance(value, str) and len(value) > value_chars:
        report["value"], report["cut"] = value[:value_chars], True
    data = json.dumps(report, default=str).encode() + b"\n"
    while data:
        data = data[os.write(CONTROL, data) :]


def main(prison: lockdown.Prison, uid_index: int, fds: list[int], scratch_bytes: int) -> None:
    """Body of a forked child; never returns."""
    # 1. What can be done before there is a job. A spare child waits in `receive`, warm.
    take_descriptors(fds, prison.ruleset)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lockdown.prepare(prison, uid_index, scratch_bytes)
    preload.rehearse()
    job = receive()
    # 2. What needs rights that the locks take: memory files, mounts.
    set_stdin(job["stdin"])
    if job["scratch_bytes"] != scratch_bytes and prison.tier is lockdown.Tier.NAMESPACE:
        namespaces.resize_scratch(job["scratch_bytes"])
    # 3. The locks. Files are written under the limits and the user id that hold for the program.
    lockdown.lock(prison, uid_index, limits_of(job), job["task_allowance"])
    if job["files"]:
        _write_files(job["files"])
        sys.path.insert(0, "/tmp")  # so that a program imports a module that came with it
    runner.seed_generators(job["seed"])
    lockdown.filter_calls(prison)
    # 4. The program. The front end starts the wall clock at this byte.
    gc.enable()
    os.write(CONTROL, STARTED)
    report = runner.run(job["code"], runner.make_module(), "<code>", job["echo"])
    # 5. Its end. The report comes before the exit, which alone decides between OK and ERROR.
    report = runner.finish(report)
    if job["fetch_files"]:
        report |= runner.read_files(job["fetch_files"])
    code = report["exit"]
    send_report(report, job["value_chars"])
    os._exit(code if isinstance(code, int) else 1)
