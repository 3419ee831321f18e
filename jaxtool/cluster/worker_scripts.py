"""What the hosts of a slice run, as bash: mount the bucket, install, look at the host, start, tell how it goes.

Each script may be run again: what is there already is left alone, and so is all where the run goes. Everything lies in ~/jaxtool_run. The work
directory is in the bucket, mounted by gcsfuse, so that all hosts see one directory and a new slice finds it.
"""

import shlex
from collections.abc import Sequence

RUN = "$HOME/jaxtool_run"
_GCSFUSE = "2.7.0"
_GCSFUSE_URL = (
    "https://github.com/GoogleCloudPlatform/gcsfuse/releases/download/"
    f"v{_GCSFUSE}/gcsfuse_{_GCSFUSE}_amd64.deb"
)
# A policy is saved by renaming a directory; every host must see at once what another one has written.
_MOUNT_FLAGS = "--implicit-dirs --rename-dir-limit=1000000 --metadata-cache-ttl-secs=0"
POLLED = "JAXTOOL_RUN"  # begins the last line of `poll`
# A run that goes keeps its code and its devices. The exit status is there before the process is reaped.
_UNLESS_IT_RUNS = f"""set -euo pipefail
run={RUN}
if [ ! -e "$run/exit_code" ] && [ -e "$run/pid" ] && kill -0 "$(cat "$run/pid")" 2> /dev/null; then
  echo "runs already"
  exit 0
fi
"""


def install(bucket: str, folder: str, code: str) -> str:
    """Mounts and installs.

    Args:
      bucket: without gs://.
      folder: of this run, inside the bucket.
      code: name of the archive of the checkout in that folder.
    """
    return f"""{_UNLESS_IT_RUNS}mkdir -p "$run/bucket"
if ! command -v gcsfuse > /dev/null; then
  curl -fsSL -o /tmp/gcsfuse.deb {_GCSFUSE_URL}
  sudo apt-get install -y -q /tmp/gcsfuse.deb > /dev/null
fi
if ! mountpoint -q "$run/bucket"; then
  gcsfuse {_MOUNT_FLAGS} --only-dir={shlex.quote(folder)} {shlex.quote(bucket)} "$run/bucket" > /dev/null
fi
mkdir -p "$run/bucket/workdir"
if [ ! -e "$run/installed-{code}" ]; then
  rm -rf "$run/code" && mkdir -p "$run/code"
  tar -xzf "$run/bucket/{code}" -C "$run/code"
  python3 -m pip install --user --quiet uv
  python3 -m uv venv --quiet --clear --python 3.12 "$run/venv"
  cd "$run/code"
  python3 -m uv pip install --quiet --python "$run/venv/bin/python" -e '.[tpu]'
  touch "$run/installed-{code}"
fi
"""


def look() -> str:
    """Looks at the host; ends with an error where a run would not go."""
    return f"""{_UNLESS_IT_RUNS}cd "$run/code"
ulimit -n 65536 2> /dev/null || true
../venv/bin/python -m experiments.doctor --workdir ../bucket/workdir --needs_gib 1
"""


def start(flags: Sequence[str]) -> str:
    """Starts experiments.train unless it runs.

    Args:
      flags: of experiments.train, besides --gin_file and --workdir.
    """
    return f"""{_UNLESS_IT_RUNS}cd "$run"
rm -f exit_code
ulimit -n 65536 2> /dev/null || true
cat > start.sh <<'JAXTOOL_START'
cd {RUN}/code
../venv/bin/python -u -m experiments.train --gin_file ../bucket/run.gin --workdir ../bucket/workdir {shlex.join(flags)}
echo "$?" > ../exit_code
JAXTOOL_START
setsid nohup bash start.sh >> train.log 2>&1 < /dev/null &
echo "$!" > pid
"""


def poll(offset: int) -> str:
    """Prints the log from a byte on, 64 KiB at most, and how it goes: running, lost, or the exit status."""
    return f"""cd {RUN}
tail -c +{offset + 1} train.log 2> /dev/null | head -c 65536
if [ -e exit_code ]; then state="$(cat exit_code)"
elif [ -e pid ] && kill -0 "$(cat pid)" 2> /dev/null; then state=running
else state=lost
fi
printf '\\n{POLLED} %s\\n' "$state"
"""
