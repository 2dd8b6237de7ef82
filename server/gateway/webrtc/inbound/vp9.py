"""VP9's payload descriptor (RFC 9628, section 4.2): browsers send a form of it that libav misreads."""

_ID, _PREDICTED, _LAYERS, _FLEXIBLE, _BEGINS, _ENDS, _STRUCTURE = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02
_MOST_REFERENCES = 3


def begins(payload: bytes) -> bool:
    """Whether a frame begins in this packet that is predicted of none."""
    return len(payload) > 1 and payload[0] & (_PREDICTED | _BEGINS) == _BEGINS


def plain(payload: bytes) -> bytes:
    """The payload behind the shortest descriptor, which says where the frame begins and ends; empty where
    it is damaged."""
    try:
        at = _descriptor_bytes(payload)
    except IndexError:
        return b""
    return bytes([payload[0] & (_BEGINS | _ENDS)]) + payload[at:] if at < len(payload) else b""


def _descriptor_bytes(payload: bytes) -> int:
    """Raises IndexError where it ends too early."""
    flags, at = payload[0], 1
    if flags & _ID:
        at += 2 if payload[at] & 0x80 else 1
    if flags & _LAYERS:
        at += 1 if flags & _FLEXIBLE else 2
    if flags & _FLEXIBLE and flags & _PREDICTED:
        for _ in range(_MOST_REFERENCES):
            more = payload[at] & 1
            at += 1
            if not more:
                break
    if flags & _STRUCTURE:
        structure = payload[at]
        at += 1
        if structure & 0x10:  # the sizes of its layers
            at += 4 * ((structure >> 5) + 1)
        if structure & 0x08:  # pictures of a group
            pictures = payload[at]
            at += 1
            for _ in range(pictures):
                at += 1 + (payload[at] >> 2 & 3)
    return at
