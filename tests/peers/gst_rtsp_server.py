"""GStreamer's RTSP server, for the system's Python: what is recorded at /cam goes to a file of H.264."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

port, file = sys.argv[1:]
Gst.init(None)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_latency(100)
factory.set_launch(
    "( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au"
    f" ! filesink sync=false buffer-mode=unbuffered location={file} rtpmp4gdepay name=depay1 ! fakesink )"
)
server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
