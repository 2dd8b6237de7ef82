"""One module for each way to run a network."""

import sys

# OpenVINO tells Google Analytics of every import, and NNCF of every use, unless their telemetry package
# can't be imported. Nothing that a live server does shall be told to anyone.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
