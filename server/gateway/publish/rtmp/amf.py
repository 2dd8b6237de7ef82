"""AMF0, the values in RTMP's commands (Adobe's Action Message Format 0)."""

import struct

from server.gateway.publish import Malformed

Value = float | bool | str | None | dict[str, "Value"] | list["Value"]

_DEEPEST = 16
_OBJECT_END = b"\0\0\x09"

_NUMBER = struct.Struct("!d")
_U16, _U32 = struct.Struct("!H"), struct.Struct("!I")


def decode(data: bytes) -> list[Value]:
    """All values in the data; raises Malformed. What stands for nothing that we use reads as None."""
    reader, values = _Reader(data), list[Value]()
    try:
        while reader.at < len(data):
            values.append(reader.value(0))
    except (struct.error, IndexError) as exc:
        raise Malformed("a command that is cut off") from exc
    return values


def encode(*values: Value) -> bytes:
    return b"".join(map(_encode, values))


def _encode(value: Value) -> bytes:
    match value:
        case None:
            return b"\x05"
        case bool():
            return b"\x01\x01" if value else b"\x01\0"
        case float() | int():
            return b"\0" + _NUMBER.pack(value)
        case str():
            return b"\x02" + _text(value)
        case dict():
            members = b"".join(_text(name) + _encode(member) for name, member in value.items())
            return b"\x03" + members + _OBJECT_END
        case list():
            return b"\x0a" + _U32.pack(len(value)) + encode(*value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _U16.pack(len(data)) + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def value(self, depth: int) -> Value:
        if depth > _DEEPEST:
            raise Malformed("a command whose values lie too deep")
        marker = self._data[self.at]
        self.at += 1
        match marker:
            case 0:
                return float(self._unpack(_NUMBER))
            case 1:
                self.at += 1
                return self._data[self.at - 1] != 0
            case 2:
                return self._take(int(self._unpack(_U16)))
            case 3:
                return self._members(depth)
            case 5 | 6 | 13:  # null, undefined, unsupported
                return None
            case 7:  # a reference to an object that was before
                self._unpack(_U16)
                return None
            case 8:  # the count is a hint; an end follows all the same
                self._unpack(_U32)
                return self._members(depth)
            case 10:
                count = int(self._unpack(_U32))
                return [self.value(depth + 1) for _ in range(min(count, len(self._data)))]
            case 11:  # a date and its time zone
                at_ms = float(self._unpack(_NUMBER))
                self._unpack(_U16)
                return at_ms
            case 12 | 15:  # long string, XML
                return self._take(int(self._unpack(_U32)))
            case 16:
                self._take(int(self._unpack(_U16)))
                return self._members(depth)
            case _:
                raise Malformed("a command with a value of no known kind")

    def _members(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while self._data[self.at : self.at + 3] != _OBJECT_END:
            name = self._take(int(self._unpack(_U16)))
            members[name] = self.value(depth + 1)
        self.at += 3
        return members

    def _take(self, size: int) -> str:
        if self.at + size > len(self._data):
            raise IndexError
        self.at += size
        return self._data[self.at - size : self.at].decode(errors="replace")

    def _unpack(self, form: struct.Struct) -> int | float:
        (value,) = form.unpack_from(self._data, self.at)
        self.at += form.size
        number: int | float = value
        return number
