"""`make audit`: known vulnerabilities of the pinned dependencies, by pip-audit's report on standard input.

pip-audit says "no known vulnerabilities" even where it could ask nobody; this says what was not checked.
"""

import json
import sys
from typing import Any

CLEAN, VULNERABLE, NOT_CHECKED = 0, 1, 3


def judge(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit status and lines for whoever reads them, of `pip-audit -f json`."""
    lines, checked, skipped = [], 0, {}
    for package in report["dependencies"]:
        if "skip_reason" in package:
            skipped[package["name"]] = package["skip_reason"]
            continue
        checked += 1
        for found in package["vulns"]:
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    status = VULNERABLE if lines else CLEAN
    if skipped:
        status = status or NOT_CHECKED
        name, reason = next(iter(skipped.items()))
        lines.append(f"NOT CHECKED: {len(skipped)} of {checked + len(skipped)} packages, as {name}: {reason}")
    lines.append(f"checked: {checked} packages")
    return status, lines


def main() -> int:
    text = sys.stdin.read()
    try:
        report = json.loads(text)
    except ValueError:
        print("NOT CHECKED: pip-audit made no report")
        return NOT_CHECKED
    status, lines = judge(report)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
