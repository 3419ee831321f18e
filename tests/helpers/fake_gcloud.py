"""A gcloud on this machine: checks commands against the flags of the real one, keeps a project in a folder, runs
scripts of `ssh` in folders that stand for hosts, and refuses, fails or takes a slice away as it is told.

Covered: what jaxtool.cluster and docs/pods.md call. A run on its hosts is `train` of the plan, a bash script. Not
covered: what Google Cloud takes for a right zone, account or quota.

The tables are of cloud.google.com/sdk/gcloud/reference.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

WIDE = {
    *("--project", "--quiet", "-q", "--format", "--filter", "--account", "--verbosity"),
    *("--billing-project", "--configuration", "--impersonate-service-account", "--log-http"),
}
_SWITCHES = {
    *(
        "--quiet",
        "-q",
        "--spot",
        "--reserved",
        "--force",
        "--async",
        "--recursive",
        "--internal-ips",
    ),
    *("--uniform-bucket-level-access", "--enable-hierarchical-namespace", "--no-clobber"),
    *("--log-http", "--guaranteed", "--internal-ip", "--tunnel-through-iap", "--dry-run", "-r"),
}
# By command: its flags besides the wide ones, and how many positional arguments it takes.
FLAGS: dict[tuple[str, ...], tuple[set[str], range]] = {
    ("auth", "list"): ({"--filter-account"}, range(0, 1)),
    ("auth", "login"): ({"--no-launch-browser", "--update-adc"}, range(0, 2)),
    ("auth", "application-default", "login"): ({"--no-launch-browser"}, range(0, 1)),
    ("services", "enable"): ({"--async"}, range(1, 20)),
    ("projects", "add-iam-policy-binding"): (
        {"--member", "--role", "--condition", "--condition-from-file"},
        range(1, 2),
    ),
    ("storage", "buckets", "create"): (
        {
            *("--location", "--uniform-bucket-level-access", "--enable-hierarchical-namespace"),
            *("--default-storage-class", "--public-access-prevention", "--soft-delete-duration"),
        },
        range(1, 20),
    ),
    ("storage", "buckets", "describe"): ({"--raw", "--soft-deleted"}, range(1, 2)),
    ("storage", "cp"): ({"--recursive", "-r", "--no-clobber", "--continue-on-error"}, range(2, 99)),
    ("storage", "cat"): ({"--range", "--display-url"}, range(1, 99)),
    ("storage", "ls"): ({"--recursive", "--long", "--json", "-r"}, range(0, 99)),
    ("storage", "rsync"): (
        {"--recursive", "-r", "--dry-run", "--delete-unmatched-destination-objects"},
        range(2, 3),
    ),
    ("compute", "tpus", "accelerator-types", "describe"): ({"--zone"}, range(1, 2)),
    ("compute", "tpus", "accelerator-types", "list"): (
        {"--zone", "--limit", "--sort-by"},
        range(0, 1),
    ),
    ("compute", "tpus", "queued-resources", "create"): (
        {
            *("--zone", "--runtime-version", "--accelerator-type", "--topology", "--type"),
            *(
                "--node-id",
                "--node-count",
                "--node-prefix",
                "--async",
                "--boot-disk",
                "--data-disk",
            ),
            *("--description", "--guaranteed", "--internal-ips", "--labels", "--metadata"),
            *("--metadata-from-file", "--network", "--range", "--reserved", "--scopes"),
            *("--service-account", "--shielded-secure-boot", "--spot", "--subnetwork", "--tags"),
            *("--valid-after-duration", "--valid-after-time", "--valid-until-duration"),
            "--valid-until-time",
        },
        range(1, 2),
    ),
    ("compute", "tpus", "queued-resources", "describe"): ({"--zone"}, range(1, 2)),
    ("compute", "tpus", "queued-resources", "list"): ({"--zone", "--limit"}, range(0, 1)),
    ("compute", "tpus", "queued-resources", "delete"): (
        {"--zone", "--async", "--force"},
        range(1, 2),
    ),
    ("compute", "tpus", "tpu-vm", "ssh"): (
        {
            *("--zone", "--worker", "--command", "--output-directory", "--internal-ip", "--plain"),
            *("--dry-run", "--force-key-file-overwrite", "--ssh-flag", "--ssh-key-file"),
            *("--strict-host-key-checking", "--ssh-key-expiration", "--tunnel-through-iap"),
        },
        range(1, 2),
    ),
}
TYPES = {"v6e-16": 4, "v6e-8": 1, "v6e-64": 16, "v5litepod-8": 1, "v5litepod-64": 16}
ZONES = {"us-east5-b", "europe-west4-a"}


class Refusal(Exception):
    """What gcloud says on stderr behind "ERROR: "."""


def parsed(words: list[str]) -> tuple[tuple[str, ...], list[str], dict[str, str]]:
    """Command, positional arguments and flags; refused as gcloud refuses them."""
    for length in (4, 3, 2):
        if (command := tuple(words[:length])) in FLAGS:
            break
    else:
        raise Refusal(f"(gcloud) Invalid choice: {' '.join(words[:4])!r}.")
    known, places = FLAGS[command]
    found, flags, rest = [], {}, list(words[len(command) :])
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(word)
            continue
        name, has_value, value = word.partition("=")
        if name not in known | WIDE:
            raise Refusal(f"(gcloud.{'.'.join(command)}) unrecognized arguments: {word}")
        if name in _SWITCHES:
            if has_value:
                raise Refusal(f"(gcloud.{'.'.join(command)}) argument {name}: ignored argument")
            value = "true"
        elif not has_value:
            if not rest:
                raise Refusal(
                    f"(gcloud.{'.'.join(command)}) argument {name}: expected one argument"
                )
            value = rest.pop(0)
        flags[name] = value
    if len(found) not in places:
        raise Refusal(f"(gcloud.{'.'.join(command)}) {len(found)} positional arguments: {found}")
    return command, found, flags


class Project:
    """The folder in which everything lies: plan.json, calls.jsonl, state.json, bucket/, hosts/."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        state = folder / "state.json"
        self.state: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}

    def close(self) -> None:
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def note(self, words: list[str]) -> None:
        with open(self.folder / "calls.jsonl", "a") as file:
            file.write(json.dumps(words) + "\n")

    def act(self, words: list[str]) -> str:
        self.note(words)
        text = " ".join(words)
        for rule in self.plan.get("refuses", []):
            used = self.state.setdefault("used", {})
            if rule["if"] in text and used.get(rule["if"], 0) < rule.get("times", 10**9):
                used[rule["if"]] = used.get(rule["if"], 0) + 1
                raise Refusal(rule["says"])
        command, places, flags = parsed(words)
        if command[0] == "compute" and flags.get("--zone") not in ZONES:
            raise Refusal(
                f"(gcloud) PERMISSION_DENIED: Permission denied on 'locations/{flags.get('--zone')}' "
                "(or it may not exist)."
            )
        act = {
            ("auth", "list"): lambda: self.plan.get("account", "me@example.com"),
            ("storage", "buckets", "describe"): lambda: self.describe_bucket(places[0]),
            ("storage", "cp"): lambda: self.copy(places),
            ("storage", "cat"): lambda: self.cat(places[0]),
            ("compute", "tpus", "accelerator-types", "describe"): lambda: self.a_type(places[0]),
            ("compute", "tpus", "queued-resources", "create"): lambda: self.create(
                places[0], flags
            ),
            ("compute", "tpus", "queued-resources", "describe"): lambda: self.describe(places[0]),
            ("compute", "tpus", "queued-resources", "delete"): lambda: self.delete(places[0]),
            ("compute", "tpus", "tpu-vm", "ssh"): lambda: self.ssh(places[0], flags),
        }.get(command)
        return act() if act else ""

    def describe_bucket(self, url: str) -> str:
        if not (self.folder / "bucket" / url.removeprefix("gs://")).is_dir():
            raise Refusal(f"(gcloud.storage.buckets.describe) {url} not found: 404.")
        return url.removeprefix("gs://")

    def object(self, url: str) -> pathlib.Path:
        return self.folder / "bucket" / url.removeprefix("gs://")

    def copy(self, places: list[str]) -> str:
        target = self.object(places[-1])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(places[0], target)
        return ""

    def cat(self, url: str) -> str:
        if not self.object(url).is_file():
            raise Refusal(
                f"(gcloud.storage.cat) The following URLs matched no objects or files:\n{url}"
            )
        return self.object(url).read_text()

    def a_type(self, name: str) -> str:
        if name not in TYPES:
            raise Refusal(f"(gcloud) NOT_FOUND: acceleratorTypes/{name} was not found.")
        return name

    def create(self, name: str, flags: dict[str, str]) -> str:
        for needed in ("--node-id", "--accelerator-type", "--runtime-version"):
            if needed not in flags:
                raise Refusal(f"(gcloud) argument {needed}: Must be specified.")
        if "resource" in self.state:
            raise Refusal(f"(gcloud) ALREADY_EXISTS: Resource {name} already exists.")
        states = list(self.plan.get("states", ["WAITING_FOR_RESOURCES", "PROVISIONING"]))
        self.state["resource"] = {
            "name": name,
            "type": self.a_type(flags["--accelerator-type"]),
            "states": [*states, self.plan.get("final", "ACTIVE")],
        }
        for worker in range(TYPES[flags["--accelerator-type"]]):
            (self.folder / "hosts" / str(worker)).mkdir(parents=True)
        return ""

    def resource(self, name: str) -> dict[str, Any]:
        found = self.state.get("resource")
        if found is None or found["name"] != name:
            raise Refusal(f"(gcloud) NOT_FOUND: Resource queuedResources/{name} was not found.")
        return found

    def describe(self, name: str) -> str:
        states = self.resource(name)["states"]
        return states.pop(0) if len(states) > 1 else states[0]

    def delete(self, name: str) -> str:
        self.resource(name)
        self.take_away()
        del self.state["resource"]
        return ""

    def take_away(self) -> None:
        """Ends everything on the hosts, and the hosts."""
        for file in (self.folder / "hosts").glob("*/jaxtool_run/pid"):
            try:
                os.killpg(int(file.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue
        for mount in (self.folder / "hosts").glob("*/jaxtool_run/bucket"):
            if mount.is_symlink():
                mount.unlink()
        shutil.rmtree(self.folder / "hosts", ignore_errors=True)

    def ssh(self, name: str, flags: dict[str, str]) -> str:
        resource, script = self.resource(name), flags["--command"]
        if resource["states"] != ["ACTIVE"]:
            raise Refusal(f"(gcloud.compute.tpus.tpu-vm.ssh) {name} is not READY.")
        if "JAXTOOL_RUN" in script:
            self.state["polls"] = self.state.get("polls", 0) + 1
            if self.state["polls"] in self.plan.get("preempts_at_polls", []):
                self.take_away()
                resource["states"] = ["SUSPENDING", "SUSPENDED"]
                raise Refusal("(gcloud.compute.tpus.tpu-vm.ssh) ssh: connect: timed out")
        chosen = range(TYPES[resource["type"]]) if flags["--worker"] == "all" else [0]
        return "".join(self.on_host(worker, script) for worker in chosen)

    def on_host(self, worker: int, script: str) -> str:
        home = self.folder / "hosts" / str(worker)
        done = subprocess.run(
            ["bash", "-c", script],
            env={
                "HOME": str(home),
                "PATH": f"{self.folder / 'host_bin'}:/usr/bin:/bin",
                "FAKE_GCLOUD": str(self.folder),
                "FAKE_WORKER": str(worker),
            },
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            raise Refusal(f"(ssh) worker {worker}: {done.stdout}{done.stderr}")
        return done.stdout


# Programs of a host: a mount is a link, an installation a folder, and a run the plan's script.
_HOST_BIN = {
    "gcsfuse": """
for word in "$@"; do case "$word" in --only-dir=*) dir="${word#--only-dir=}";; -*) ;; *) args+=("$word");; esac; done
echo "$@" >> "$FAKE_GCLOUD/mounts"
mkdir -p "$FAKE_GCLOUD/bucket/${args[0]}/$dir"
rmdir "${args[1]}" && ln -s "$FAKE_GCLOUD/bucket/${args[0]}/$dir" "${args[1]}"
""",
    "mountpoint": 'test -L "$2"\n',
    "python3": """
echo "worker $FAKE_WORKER: python3 $*" >> "$FAKE_GCLOUD/installs"
if [ "$2 $3" = "uv venv" ]; then
  venv="${@: -1}"; mkdir -p "$venv/bin"; cp "$FAKE_GCLOUD/host_bin/venv_python" "$venv/bin/python"
fi
""",
    "venv_python": """
case "$*" in
  *experiments.doctor*) echo "ok   disk"; exit "$(cat "$FAKE_GCLOUD/doctor_exit")";;
  *experiments.train*) echo "worker $FAKE_WORKER: $*" >> "$FAKE_GCLOUD/trains"; exec bash "$FAKE_GCLOUD/train.sh";;
esac
""",
}
FINISHES = (
    'echo "step 1 of 1"; echo \'{"finished_step": 1, "steps": 1}\' > ../bucket/workdir/run.json\n'
)
_SWITCH = "#!/bin/bash\n"


def make(folder: pathlib.Path, *, train: str = FINISHES, doctor_exit: int = 0, **plan: Any) -> None:
    """A project, and gcloud in its folder `bin`.

    Args:
      train: what experiments.train does on each host, as bash in the checkout.
      plan: "refuses": [{"if": part of a command, "says", "times"}], "states" before "final", "account",
        "preempts_at_polls".
    """
    (folder / "bucket" / "my-bucket").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "doctor_exit").write_text(str(doctor_exit))
    (folder / "train.sh").write_text(train)
    (folder / "host_bin").mkdir()
    for name, text in _HOST_BIN.items():
        _program(folder / "host_bin" / name, _SWITCH + text.lstrip())
    (folder / "bin").mkdir()
    own = pathlib.Path(__file__).resolve()
    _program(
        folder / "bin" / "gcloud", f'{_SWITCH}exec "{sys.executable}" -S "{own}" "{folder}" "$@"\n'
    )


def calls(folder: pathlib.Path) -> list[list[str]]:
    """The commands so far."""
    file = folder / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _program(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    folder, words = parser.parse_known_args(sys.argv[1:2])[0].folder, sys.argv[2:]
    project = Project(folder)
    try:
        sys.stdout.write(project.act(words))
    except Refusal as refusal:
        sys.stderr.write(f"ERROR: {refusal}\n")
        sys.exit(1)
    finally:
        project.close()


if __name__ == "__main__":
    main()
