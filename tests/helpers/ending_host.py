"""One process of several that ends in its own way while the others wait for it.

python ending_host.py PORT NUM_PROCESSES PROCESS_ID WHO HOW collective|exchange FOLDER

WHO ends: by "kill" (SIGKILL), by "error" (a ValueError of its own), by "silence" (SIGSTOP), by "stop" (SIGTERM to it
alone), or not at all ("finish"). With "apart" each host has a work directory of its own under FOLDER. The others wait for it in an exchange, or in a collective of the devices. `entry.run` ends them as it ends any command.
"""

import os
import signal
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[2]))

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxtool.cli import entry
from jaxtool.parallel import host_network, hosts
from jaxtool.rundir import workdir
from jaxtool.rundir.stopping import StopNotice
from jaxtool.rundir.workdir import hold_workdir


def main() -> None:
    port, count, index, who = map(int, sys.argv[1:5])
    how, waits_in = sys.argv[5], sys.argv[6]
    if how == "silence":
        host_network.SILENT_S, host_network.BEAT_S = 2.0, 0.2
    if how == "apart":
        workdir.SEEN_S = 0.5
    jax.config.update("jax_num_cpu_devices", 1)
    hosts.start(coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=index)
    assert hosts.exchange(("x" * (index + 1), np.arange(index))) is not None
    print(f"joined {time.time()}", flush=True)
    if index == who and how == "kill":
        time.sleep(0.5)  # the others wait by then
        os.kill(os.getpid(), signal.SIGKILL)
    if index == who and how == "silence":
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGSTOP)
    if index == who and how == "error":
        time.sleep(0.5)
        raise ValueError("its disk is full: make room")
    folder = Path(sys.argv[7]) / (str(index) if how == "apart" else "run")
    with hold_workdir(folder), StopNotice(folder) as stop:
        while index == who and how == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            stop.check()
        if waits_in == "collective":
            multihost_utils.process_allgather(np.ones(3))
        else:
            hosts.exchange(None)
    print("went on", flush=True)


if __name__ == "__main__":
    # The allocator's restart would only cost time here.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    entry.run(main)
