"""The last rung: it gives what a network gives but for its detail."""

import numpy as np
import pytest

from engine.frame import YuvFrame
from engine.load import load_engine
from server.settings import DEFAULT_MODEL
from server.wire.synthetic import SyntheticFormat
from server.worker.ingest.synthetic import read_frame_number, synthetic_frame
from server.worker.process.bicubic import bicubic_engine


def test_bicubic_gives_what_the_network_gives_but_for_its_detail():
    width, height = 320, 180
    frame = synthetic_frame(7, SyntheticFormat(width=width, height=height))
    outputs = []
    engine = load_engine(DEFAULT_MODEL, width=width, height=height)
    for one in (bicubic_engine(width, height, engine.spec.scale), engine):
        lane = one.lane()
        lane.submit(frame)
        outputs.append(lane.wait())
    ours, network = outputs
    for plane, other in ((ours.y, network.y), (ours.u, network.u), (ours.v, network.v)):
        assert plane.shape == other.shape
        error = plane.astype(float) - other
        assert 10 * np.log10(255**2 / (error**2).mean()) > 25
    assert read_frame_number(ours.y, 2) == 7


@pytest.mark.parametrize("value", [0, 16, 128, 235, 255])
def test_bicubic_keeps_the_code_values_whatever_the_range(value):
    planes = [np.full(shape, value, np.uint8) for shape in ((18, 34), (9, 17), (9, 17))]
    lane = bicubic_engine(34, 18, 3).lane()
    lane.submit(YuvFrame(y=planes[0], u=planes[1], v=planes[2]))
    out = lane.wait()
    assert out.y.shape == (54, 102)
    for plane in (out.y, out.u, out.v):
        assert np.all(plane == value)


def test_bicubic_refuses_another_size():
    with pytest.raises(ValueError, match=r"must be \(96, 160\)"):
        bicubic_engine(160, 96, 2).lane().submit(synthetic_frame(0, SyntheticFormat(width=320, height=180)))
