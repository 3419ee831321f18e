"""What a run of .ci/run left out, from pytest's JUnit records.

python .ci/not_run.py RECORD.xml ...          tests skipped in the first record that no later one ran, by reason
python .ci/not_run.py --require RECORD.xml    ends with 1 if a test was skipped there, or none ran
"""

import collections
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def cases(file: str) -> tuple[set[str], dict[str, str]]:
    """Names of the tests that ran, and of those skipped with the reason. A module skipped whole is one test."""
    ran, skipped = set(), {}
    for case in ElementTree.parse(file).iter("testcase"):
        name = f"{case.get('classname', '')}.{case.get('name', '')}".strip(".")
        reason = case.find("skipped")
        if reason is None:
            ran.add(name)
        else:
            message, text = reason.get("message", ""), (reason.text or "").strip()
            if (
                message == "collection skipped"
            ):  # the reason is in ('file', line, 'Skipped: reason')
                message = text.rpartition("Skipped: ")[2].rstrip("')\"")
            skipped[name] = message or text
    return ran, skipped


def left_out(files: list[str]) -> dict[str, list[str]]:
    """Tests that ran nowhere, by reason."""
    _, skipped = cases(files[0])
    ran = {name for file in files[1:] if pathlib.Path(file).exists() for name in cases(file)[0]}
    reasons = collections.defaultdict(list)
    for name, reason in skipped.items():
        if name not in ran and not any(other.startswith(f"{name}.") for other in ran):
            reasons[reason].append(name)
    return dict(reasons)


def main() -> None:
    if sys.argv[1] == "--require":
        ran, skipped = cases(sys.argv[2])
        for name, reason in skipped.items():
            print(f"skipped, but must run here: {name}: {reason}")
        if not ran:
            print(f"no test ran: {sys.argv[2]}")
        sys.exit(1 if skipped or not ran else 0)
    for reason, names in left_out(sys.argv[1:]).items():
        print(f"NOT RUN: {len(names)} tests, such as {names[0]}: {reason}")


if __name__ == "__main__":
    main()
