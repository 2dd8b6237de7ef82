"""The table of docs/deploy.md: every file in deploy/ has a row, every row a file and a test that exists."""

import re
import subprocess

from tests.conftest import ROOT

ROWS = re.findall(
    r"^\| (?P<files>[^|]*) \| [^|]+ \| `(?P<path>tests/[^`:]+)::(?P<test>\w+)` \|$",
    (ROOT / "docs/deploy.md").read_text(),
    re.MULTILINE,
)
DEPLOY = ROOT / "deploy"


def test_every_file_in_deploy_has_a_row_and_every_row_a_file() -> None:
    patterns = [pattern for files, _, _ in ROWS for pattern in re.findall(r"`([^`]+)`", files)]
    found = {pattern: set(ROOT.glob(f"deploy/{pattern}")) for pattern in patterns}
    assert [pattern for pattern, files in found.items() if not files and not pattern.startswith("../")] == []
    # What others than git know of, such as caches, is not deployed.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "deploy"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed
    assert {ROOT / name for name in listed} - set().union(*found.values()) == set()


def test_every_test_of_the_table_exists() -> None:
    assert ROWS
    missing = [
        f"{path}::{test}"
        for _, path, test in ROWS
        if not re.search(rf"(?m)^(async )?def {test}\(", (ROOT / path).read_text())
    ]
    assert missing == []
