"""What a release needs: known licences, an audit that doesn't pretend, a changelog with its versions."""

import io
import json
import re
import tomllib

import pytest
from packaging.version import Version

from tests.conftest import ROOT
from tests.release import audit, licenses
from tests.release.dependencies import needed

CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
CLEAN = {"name": "good", "version": "1.0", "vulns": []}
SKIPPED = {"name": "unknown", "skip_reason": "it is not on the index"}
HOLED = {"name": "bad", "version": "1.0", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["1.1"]}]}


def test_the_page_of_licences_is_what_is_installed():
    assert (ROOT / "docs" / "licenses.md").read_text() == licenses.page(), "make licenses"


def test_every_licence_is_known_and_allowed():
    terms = {name: licenses.refused(licenses.license_of(name)) for name in needed("train")}

    assert {name: refused for name, refused in terms.items() if refused} == {}


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        ("MIT", []),
        ("GPL-3.0-only OR BSD-3-Clause", []),
        ("Apache-2.0 AND GPL-3.0-only", ["GPL-3.0-only"]),
        ("Apache-2.0 WITH LLVM-exception", []),
        ("GPL-3.0-only AND (MIT OR Apache-2.0)", ["GPL-3.0-only"]),
        ("(GPL-3.0-only OR (MIT AND ISC)) AND BSD-3-Clause", []),
        ("unknown", ["unknown"]),
    ],
)
def test_terms_that_are_not_allowed_are_found(expression, refused):
    assert licenses.refused(expression) == refused


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([CLEAN, CLEAN], audit.CLEAN, ["checked: 2 packages"]),
        ([CLEAN, HOLED], audit.VULNERABLE, ["bad 1.0: CVE-2026-1, fixed in 1.1", "checked: 2 packages"]),
        (
            [SKIPPED, CLEAN],
            audit.NOT_CHECKED,
            ["NOT CHECKED: 1 of 2 packages, as unknown: it is not on the index", "checked: 1 packages"],
        ),
    ],
)
def test_an_audit_says_what_it_did_not_check(packages, status, said, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"dependencies": packages})))
    assert audit.main() == status
    assert capsys.readouterr().out.splitlines() == said


def test_an_audit_without_a_report_is_none(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert audit.main() == audit.NOT_CHECKED


def test_the_changelog_has_a_heading_for_each_version_the_newest_first():
    first, *released = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert first == "Unreleased"
    versions = []
    for heading in released:
        found = re.fullmatch(r"(\d+\.\d+\.\d+) \(\d{4}-\d{2}-\d{2}\)", heading)
        assert found, f"## {heading} must be as: ## 0.1.0 (2026-12-31)"
        versions.append(Version(found[1]))
    assert versions == sorted(versions, reverse=True)
    current = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(version <= Version(current) for version in versions)
