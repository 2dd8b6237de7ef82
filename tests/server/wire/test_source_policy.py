"""What a source's text may say, and which addresses may be called."""

from ipaddress import ip_address

import pytest

from server.settings import Settings
from server.wire.source_policy import SourcePolicy, allows_address, allows_file, check_text

CLOSED = Settings().sources.policy()
OPEN = SourcePolicy(
    schemes=("rtsp", "rtmp", "http", "udp", "srt", "file"),
    hosts=("Camera.lan", "192.168.1.0/24", "127.0.0.1"),
    folders=("/srv/clips",),
    listen_ports=(1935,),
)


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://camera.example/1",
        "http://8.8.8.8/live.m3u8",
        "https://[2606:4700::1111]/a.ts",
        "synthetic:?size=320x180",
        "demo:",
    ],
)
def test_public_sources_are_allowed_from_the_start(source):
    check_text(source, CLOSED)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("/etc/passwd", "sources.schemes"),
        ("v4l2:/dev/video0", "sources.schemes"),
        ("file:///etc/passwd", "sources.schemes"),
        ("udp://0.0.0.0:5000", "sources.schemes"),
        ("rtmp://0.0.0.0:1935/live/key?listen=1", "sources.listen_ports"),
        ("rtmp://camera.example/live?listen=1", "sources.listen_ports"),
        ("srt://127.0.0.1:9000?mode=caller", "sources.hosts"),
        ("srt://0.0.0.0:9000?mode=listener", "sources.listen_ports"),
        ("http://127.0.0.1/", "sources.hosts"),
        ("http://127.1/", "sources.hosts"),
        ("http://2130706433/", "sources.hosts"),
        ("http://0x7f000001/", "sources.hosts"),
        ("http://0/", "sources.hosts"),
        ("http://user@10.0.0.1/", "sources.hosts"),
        ("http://169.254.169.254/latest/meta-data", "sources.hosts"),
        ("http://100.64.0.1/", "sources.hosts"),
        ("rtsp://224.0.0.1/", "sources.hosts"),
        ("rtsp://[::1]/", "sources.hosts"),
        ("rtsp://[fe80::1%25eth0]/", "sources.hosts"),
        ("rtsp://[fd00::1]/", "sources.hosts"),
        ("rtsp://[::ffff:127.0.0.1]/", "sources.hosts"),
        ("rtsp://[2002:7f00:1::]/", "sources.hosts"),
        ("rtsp://[64:ff9b::a00:1]/", "sources.hosts"),
        ("rtsp://host:99999/", "[Pp]ort"),
    ],
)
def test_what_leads_into_the_host_or_its_network_is_not(source, rule):
    with pytest.raises(ValueError, match=rule):
        check_text(source, CLOSED)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("http://192.168.1.7/a.ts", None),
        ("http://192.168.2.7/a.ts", "sources.hosts"),
        ("/srv/clips/a.mp4", None),
        ("file:///srv/clips/a.mp4", None),
        ("/srv/clips/../../etc/passwd", "sources.folders"),
        ("/srv/clips-of-others/a.mp4", "sources.folders"),
        ("a.mp4", "sources.folders"),
        ("rtmp://0.0.0.0:1935/live/key?listen=1", None),
        ("rtmp://0.0.0.0/live/key?listen=1", None),
        ("rtsp://0.0.0.0/key?listen=1", "port 554 is not one of sources.listen_ports"),
        ("rtmp://0.0.0.0:1936/live/key?listen=1", "sources.listen_ports"),
        ("udp://0.0.0.0:1935", None),
        ("srt://0.0.0.0:1935?mode=listener", None),
        ("srt://192.168.1.7:9000", None),
        ("srt://192.168.2.7:9000", "sources.hosts"),
        ("udp://0.0.0.0:5000", "sources.listen_ports"),
        ("udp://0.0.0.0:1935?localport=22", "no options"),
        ("udp://239.1.1.1:1935", "sources.hosts"),
        ("udp://group.lan:1935", "sources.hosts"),
        ("rtsps://camera.lan/1", "sources.schemes"),
    ],
)
def test_what_the_operator_names_is_allowed_and_no_more(source, rule):
    if rule is None:
        check_text(source, OPEN)
        return
    with pytest.raises(ValueError, match=rule):
        check_text(source, OPEN)


def test_a_named_host_may_have_any_address():
    assert allows_address("camera.LAN", ip_address("10.0.0.1"), OPEN)
    assert not allows_address("other.lan", ip_address("10.0.0.1"), OPEN)
    assert allows_address("other.lan", ip_address("192.168.1.1"), OPEN)


def test_a_link_does_not_lead_out_of_a_folder(tmp_path):
    folder, outside = tmp_path / "clips", tmp_path / "secret.mp4"
    folder.mkdir()
    outside.write_bytes(b"x")
    (folder / "a.mp4").symlink_to(outside)
    (folder / "b.mp4").write_bytes(b"x")
    policy = SourcePolicy(schemes=("file",), hosts=(), folders=(str(folder),), listen_ports=())
    assert not allows_file(folder / "a.mp4", policy)
    assert allows_file(folder / "b.mp4", policy)
