"""What is read of a payload: where a decoder can begin, and a descriptor that libav understands."""

import pytest

from server.gateway.webrtc.inbound import vp9
from server.gateway.webrtc.inbound.begins import begins


@pytest.mark.parametrize(
    ("codec", "payload", "key"),
    [
        ("H264", "67640028", True),  # SPS
        ("H264", "6588", True),  # IDR
        ("H264", "419a", False),
        ("H264", "7c85ff", True),  # FU-A: an IDR begins
        ("H264", "7c05ff", False),  # it goes on
        ("H264", "7c81ff", False),
        ("H264", "78000209f000036742c000", True),  # STAP-A: AUD, SPS
        ("H264", "78000209f0000241aa", False),
        ("H264", "78", False),
        ("H264", "", False),
        ("VP8", "10000000", True),
        ("VP8", "10010000", False),
        ("VP8", "00000000", False),  # no beginning
        ("VP8", "9080e60f10", True),  # I, with a picture ID of 15 bits
        ("VP8", "90e08102000000", True),  # I, L
        ("VP8", "90", False),
        ("VP9", "9b973610014000f0824983", True),
        ("VP9", "91973607b3", False),
        ("VP9", "dd97370286004092", False),
        ("VP9", "", False),
        ("AV1", "180a0b", True),
        ("AV1", "100a0b", False),
        ("AV1", "", False),
    ],
)
def test_a_key_frame_is_told_by_its_first_packet(codec, payload, key):
    assert begins(codec, bytes.fromhex(payload)) is key


# As Chromium sends them: a key frame with its structure, its middle, and a frame of the flexible mode.
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("9b973610014000f0824983420013f00e", "08824983420013f00e"),
        ("91973607b3f67393aa", "0007b3f67393aa"),
        ("dd97370286004092", "0c86004092"),
        ("dd973703050286004092", "0c86004092"),  # three references
        ("ac0211058249", "0c8249"),  # layers, TL0PICIDX
        ("0c8249", "0c8249"),
        ("9b9736", ""),
        ("0c", ""),
        ("", ""),
    ],
)
def test_the_descriptor_of_vp9_is_made_plain(payload, expected):
    assert vp9.plain(bytes.fromhex(payload)).hex() == expected
