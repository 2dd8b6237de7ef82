"""The webrtcbin of GStreamer, for the system's Python: `whip URL` publishes, `whep URL FILE` plays I420."""

import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

H264 = "application/x-rtp,media=video,encoding-name=H264,clock-rate=90000,payload=96"
PUBLISHED = f"""videotestsrc is-live=true pattern=ball ! video/x-raw,width=160,height=90,framerate=12/1
    ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=12
    ! video/x-h264,profile=constrained-baseline
    ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! {H264} ! peer."""

role, url, *file = sys.argv[1:]
Gst.init(None)
# Of one element alone no pipeline is made.
sent = PUBLISHED if role == "whip" else "fakesrc num-buffers=1 ! fakesink"
pipeline = Gst.parse_launch(f"webrtcbin name=peer bundle-policy=max-bundle {sent}")
peer = pipeline.get_by_name("peer")


def offer(*_: object) -> None:
    peer.emit("create-offer", None, Gst.Promise.new_with_change_func(offered))


def offered(promise: Gst.Promise) -> None:
    reply = promise.get_reply()  # it owns the offer
    peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())


def gathered(*_: object) -> None:
    if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        return
    sdp = peer.get_property("local-description").sdp.as_text().encode()
    request = urllib.request.Request(url, sdp, {"Content-Type": "application/sdp"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        _, message = GstSdp.SDPMessage.new_from_text(answer.read().decode())
    description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
    peer.emit("set-remote-description", description, Gst.Promise.new())


def play(_: object, pad: Gst.Pad) -> None:
    if pad.get_direction() == Gst.PadDirection.SRC:
        described = f"""rtph264depay ! avdec_h264 ! video/x-raw,format=I420
            ! filesink sync=false buffer-mode=unbuffered location={file[0]}"""
        player = Gst.parse_bin_from_description(described, True)
        pipeline.add(player)
        player.sync_state_with_parent()
        pad.link(player.get_static_pad("sink"))


peer.connect("notify::ice-gathering-state", gathered)
if role == "whep":
    peer.connect("pad-added", play)
    direction = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
    peer.emit("add-transceiver", direction, Gst.Caps.from_string(H264))
peer.connect("on-negotiation-needed", offer)
pipeline.set_state(Gst.State.PLAYING)
GLib.MainLoop().run()
