"""Damaged copies of valid input: what a broken or hostile peer sends is mostly right."""

import random
from collections.abc import Sequence

# Numbers at which lengths and counters go wrong.
_ODD_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
_ODD_TEXT = (
    b"",
    b"-1",
    b"0",
    b"65536",
    b"4294967296",
    b"1e999",
    b"NaN",
    b"%00",
    b"\r\n",
    b"\xff\xfe",
    b"A" * 4096,
)


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`data` after one to six changes; `others` lend parts of themselves."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randint(0, len(changed)), rng.randint(0, 16)
        match rng.randrange(7):
            case 0 if changed:
                changed[at - 1] ^= 1 << rng.randrange(8)
            case 1 if changed:
                changed[at - 1] = rng.choice(_ODD_BYTES)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = rng.randbytes(length)
            case 4:
                changed[at:at] = changed[at : at + 8 * length]  # said twice
            case 5:
                changed[at : at + length] = rng.choice(_ODD_TEXT)
            case _:
                other = rng.choice(others)
                start = rng.randint(0, len(other))
                changed[at:] = other[start:]
    return bytes(changed)
