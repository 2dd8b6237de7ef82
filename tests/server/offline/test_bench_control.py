"""`livesr bench --control`: a gateway in a process of its own, among hosts that do nothing."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from server.__main__ import main


def test_streams_are_placed_measured_and_plotted(tmp_path: Path, capsys):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "control.svg"
    assert main(["bench", "--control", "3", "--seconds", "0.3", "--plot", str(plot), "--json"]) == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert (cost["streams"], cost["restarts"]) == (3, 0)
    assert 0 < cost["gateway_share"] < 1
    assert cost["messages_per_s"] > 2
    assert min(cost["list_bytes"], cost["scrape_bytes"], cost["homes"]["view_bytes"]) > 100
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_what_can_not_be_drawn_to_is_said_before_anything_is_measured(tmp_path: Path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["bench", "--control", "1000", "--plot", str(tmp_path / "a.jpg")]) == 2
    assert "must end in .svg or .png" in capsys.readouterr().err
