"""How a stream's publishers come to its desk: by a door of `listen=1`, WHIP, standard input, or not."""

from server.gateway.publish.desk import Desk
from server.gateway.publish.doors import Doors
from server.wire.urls import PublishAddress, find_scheme, publish_address, scheme


class Entrance:
    def __init__(self, doors: Doors, desk: Desk) -> None:
        self._doors = doors
        self._desk = desk
        self._address: PublishAddress | None = None
        self.takes_whip = False
        self._takes_one = False

    @property
    def takes_one(self) -> bool:
        """Whether only one worker at a time can have the source, as what is published and UDP ports are."""
        return self._takes_one

    def open(self, source: str) -> None:
        """Lets in who publishes that source, if it is one that is published."""
        self.takes_whip = find_scheme(source).reader == "whip"
        if find_scheme(source).reader == "stdin":
            self._doors.stdin.enter(self._desk)
        self._address = publish_address(source)
        published = self.takes_whip or find_scheme(source).reader == "stdin" or self._address is not None
        self._takes_one = published or scheme(source) == "udp"
        if self._address is not None:
            self._doors.enter(self._address, self._desk)

    def close(self) -> None:
        """Hangs up on who publishes; may be called again."""
        self._desk.close()
        self.takes_whip = False
        self._doors.stdin.leave(self._desk)
        if self._address is not None:
            self._doors.leave(self._address, self._desk)
            self._address = None
