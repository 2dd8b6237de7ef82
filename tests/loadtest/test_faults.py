"""`livesr-loadtest faults` against the real service."""

import json

from loadtest.__main__ import main
from tests.peers.service import running


def test_a_table_of_each_fault(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda *_: [])  # put back afterwards
    with running(tmp_path) as service:
        options = ["--tries", "1", "--size", "128x96", "--fps", "15", "--pause", "1"]

        status = main(["faults", "--url", service.url, *options, "--json"])

        report = json.loads(capsys.readouterr().out)
        assert service.http.get("/api/streams").json() == []
    assert status == 0
    assert [row["fault"] for row in report["rows"]] == ["killed", "stopped", "crashed"]
    for row in report["rows"]:
        assert row["noticed_s"]["max"] > 0
        assert 0 < row["moving_s"]["max"] < 30
    assert report["rows"][1]["noticed_s"]["min"] > 0.2, "silence, not an end, is what was noticed"


def test_only_this_machine_is_hurt(capsys):
    status = main(["faults", "--url", "http://192.0.2.1:8080/"])

    assert status == 2
    said = "must be this machine, whose processes are hurt"
    assert capsys.readouterr().err == f"livesr-loadtest faults: --url http://192.0.2.1:8080/: {said}\n"
