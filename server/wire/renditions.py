"""Names of renditions: the same picture may be encoded in VP8 as well, for viewers without H.264."""

from server.wire.messages import Rendition

_VP8 = "-vp8"


def in_vp8(picture: Rendition) -> Rendition:
    """The rendition of that picture in VP8."""
    return picture_of(picture) + _VP8


def is_vp8(rendition: Rendition) -> bool:
    return rendition.endswith(_VP8)


def picture_of(rendition: Rendition) -> Rendition:
    """The rendition that shows the same picture in H.264."""
    return rendition.removesuffix(_VP8)
