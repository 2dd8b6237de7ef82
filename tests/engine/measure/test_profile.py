"""The profile names every convolution of the network, and its shares add up."""

import pytest

from engine.config import live_config
from engine.measure.profile import describe, profile_model


def test_every_convolution_is_there_with_its_multiply_adds() -> None:
    profile = profile_model("awsrn-live-x2", width=64, height=48, threads=1, seconds=0.1)
    convolutions = {node.name: node for node in profile.nodes if node.kind == "Convolution"}
    config = live_config()
    pixels = 64 * 48
    assert convolutions["head/conv"].macs == 9 * config.features * pixels
    assert convolutions["tail/conv"].macs == 6 * 6 * config.features * 16 * pixels // 4
    # head, skip, tail, chroma, two for each unit and its share of the LRFU
    assert len([node for node in convolutions.values() if node.macs]) == 4 + 3 * config.awrus
    assert profile.total_ms == pytest.approx(sum(node.ms for node in profile.nodes))
    share = profile.share_of_peak(profile.nodes)
    assert share is not None
    assert 0 < share < 2  # so small a frame's times are coarse
    assert profile.share_of_peak([node for node in profile.nodes if not node.macs]) is None


def test_the_table_has_layers_and_types() -> None:
    profile = profile_model("awsrn-live-x2", width=64, height=48, threads=1, seconds=0.1)
    lines = describe(profile).splitlines()
    assert lines[0].startswith("awsrn-live-x2 · openvino int8 · 64×48 · ")
    assert [line.split()[:2] for line in lines if line.startswith("tail/conv")] == [
        ["tail/conv", "Convolution"]
    ]
    assert lines[-1].split()[0] == "all"
    assert "100.0%" in lines[-1]
