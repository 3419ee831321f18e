"""One process of a run on several hosts: joins the others and does what a test asks, then prints it.

python one_of_several.py PORT NUM_PROCESSES PROCESS_ID FOLDER WHAT

WHAT is a function of `helpers.several_hosts`. Errors end the process as they end a command.
"""

import json
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # no restart for an allocator
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
os.environ.setdefault("JAXTOOL_TRACEBACK", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from jaxtool.cli import entry
from jaxtool.parallel import hosts

DEVICES = 8


def main() -> None:
    port, count, index, folder = *map(int, sys.argv[1:4]), Path(sys.argv[4])
    jax.config.update("jax_num_cpu_devices", DEVICES // count)
    hosts.start(coordinator=f"127.0.0.1:{port}", num_processes=count, process_id=index)
    from helpers import several_hosts

    print(json.dumps(getattr(several_hosts, sys.argv[5])(folder)), flush=True)


if __name__ == "__main__":
    entry.run(main)
