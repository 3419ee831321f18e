"""What .ci/run makes of pip-audit's answer: vulnerabilities fail, packages that nobody knows are named."""

import importlib.util

from jaxtool.config.loader import REPOSITORY_ROOT

_spec = importlib.util.spec_from_file_location("ci_audit", REPOSITORY_ROOT / ".ci" / "audit.py")
assert _spec is not None
assert _spec.loader is not None
audit = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(audit)

REPORT = {
    "dependencies": [
        {"name": "fine", "version": "1.0", "vulns": []},
        {
            "name": "bad",
            "version": "2.0",
            "vulns": [
                {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]},
                {"id": "PYSEC-2", "fix_versions": []},
            ],
        },
        {"name": "jaxtool", "skip_reason": "not on PyPI"},
        {"name": "hidden", "skip_reason": "not found"},
    ]
}


def test_vulnerabilities_are_lines_and_unknown_packages_are_named():
    wrong, unknown = audit.judge(REPORT)
    assert wrong == [
        "bad 2.0: PYSEC-1, mended in 2.1, 3.0",
        "bad 2.0: PYSEC-2, mended in none yet",
    ]
    assert unknown == ["hidden"]
    assert audit.not_run(unknown).startswith("pip-audit: 1 packages, such as hidden: ")
    assert audit.not_run([]) == ""


def test_every_extra_that_is_resolved_exists():
    text = (REPOSITORY_ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'        "{extra}": ' in text for extra in audit.EXTRAS)
