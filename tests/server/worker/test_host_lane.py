"""The lane of pictures on the host: the frame to encode is the engine's output, cropped to the source."""

from dataclasses import replace

import numpy as np
import pytest

from engine.load import load_engine
from server.worker.process.lanes import picture_lane
from server.worker.process.picture import host_planes, plane_view
from tests.server.worker.test_pipeline import picture


@pytest.mark.parametrize(("width", "height"), [(96, 64), (94, 62), (95, 63)])
def test_the_frame_is_the_engines_output_cropped(width: int, height: int) -> None:
    even = picture(5, width + width % 2, height + height % 2)
    source = replace(even, format=replace(even.format, width=width, height=height))
    planes = host_planes(source)
    engine = load_engine("awsrn-live-x2", width=planes.y.shape[1], height=planes.y.shape[0])
    lane = engine.lane()
    lane.submit(planes)
    expected = lane.wait()

    host_lane = picture_lane(engine, on_gpu=False)
    host_lane.submit(source)
    frame = host_lane.wait()
    assert (frame.width, frame.height) == (2 * width, 2 * height)
    for index, plane in enumerate((expected.y, expected.u, expected.v)):
        part = plane_view(frame, index)
        np.testing.assert_array_equal(part, plane[: part.shape[0], : part.shape[1]])
