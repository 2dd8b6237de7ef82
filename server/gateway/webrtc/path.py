"""What one viewer's network carries, as its feedback tells: what arrives, waits on the way, is lost."""

from array import array
from collections import deque
from collections.abc import Sequence

from server.gateway.webrtc.feedback import Arrivals

_REMEMBERED = 4096  # packets sent
_UNKNOWN, _MISSING, _ARRIVED, _LATE = range(4)  # what the viewer has said of one
_WINDOW_S = 1.0  # of the receiver's clock: what is delivered and lost
_BASE_S = 10.0  # the least delay of the last ten to twenty seconds is that of an empty queue
_CLOCK_S = (1 << 24) * 64e-3  # the receiver's clock wraps
# A queue this long for so long, or so much lost: more is sent than the network carries. Wireless networks
# lose a tenth and more by chance.
_QUEUE_S, _QUEUED_FOR_S = 0.12, 0.25
_LOSS, _LOSING_FOR_S = 0.25, 0.5
# A viewer's own estimate is held down by how little it is sent, and counts only where something is lost.
_ESTIMATED, _ESTIMATE_LOSS = 0.9, 0.05
_COUNTED_S = 0.5
# Shares of loss from which a frame's dozen of packets needs one round trip, and two, to be whole.
_REPAIRED_IN = (0.005, 0.075)
_LOSS_SAMPLES, _PICTURE_S, _LONGEST_HOLD_S, _HELD_FOR_S = 20, 0.06, 0.5, 20.0


class Path:
    """Times are of the monotonic clock, in seconds; rates are in bits a second."""

    def __init__(self) -> None:
        self.rtt_s = 0.1
        self.rtt_measured = False  # until then it is assumed
        self.loss = 0.0  # of the packets of the last second
        self.queue_s = 0.0  # what a packet waits on the way
        self.hold_s = 0.0  # a viewer that holds pictures back for so long has what was lost in time
        self._usual_loss = 0.0
        self._held_s = float("-inf")  # when it last had to be for so long
        self.estimate_bps: float | None = None  # the viewer's own (REMB), where it gives one
        self.sent_bps = 0.0
        self._sent_bytes, self._counted_since_s = 0, 0.0
        self._number = 0
        # Of the packets sent, by their numbers modulo. Arrays, as a viewer's thousands of objects would keep
        # the garbage collector busy.
        self._sent_s = array("d", [0.0]) * _REMEMBERED
        self._sizes = array("I", [0]) * _REMEMBERED
        self._numbers = array("H", [0]) * _REMEMBERED
        self._states = bytearray([_ARRIVED]) * _REMEMBERED
        self._window: deque[int] = deque()  # where those are that the viewer has spoken of
        self._missing = 0  # so many of these
        self._arrived: deque[tuple[float, int]] = deque()  # the receiver's clock, bytes
        self._delays_s: deque[tuple[float, float]] = deque()  # least delay of each second
        self._from_s = float("-inf")
        self._turn_s = 0.0  # how often the receiver's clock has wrapped
        self._clock_s: float | None = None
        self._queued_since_s: float | None = None
        self._losing_since_s: float | None = None

    def sent(self, sizes: Sequence[int], now_s: float) -> list[int]:
        """The numbers under which the packets go, of 16 bits."""
        number, numbers = self._number, []
        for size in sizes:
            at = number % _REMEMBERED
            if self._window and self._window[0] == at:
                self._leave_window()
            self._sent_s[at] = now_s
            self._sizes[at] = size
            self._numbers[at] = number
            self._states[at] = _UNKNOWN
            numbers.append(number)
            number = number + 1 & 0xFFFF
        self._number = number
        self.count(sum(sizes), now_s)
        return numbers

    def count(self, size: int, now_s: float) -> None:
        """So many bytes are sent."""
        self._sent_bytes += size
        lasted_s = now_s - self._counted_since_s
        if lasted_s > _COUNTED_S:
            self.sent_bps = self._sent_bytes * 8 / lasted_s if lasted_s < 2 * _COUNTED_S else 0.0
            self._sent_bytes, self._counted_since_s = 0, now_s

    def measured(self, rtt_s: float) -> None:
        self.rtt_measured = True
        self.rtt_s += (min(max(rtt_s, 0.001), 2.0) - self.rtt_s) / 4

    def reported_loss(self, loss: float, now_s: float) -> None:
        """Of a viewer whose feedback doesn't say more."""
        if self._clock_s is None:
            self.loss += (loss - self.loss) / 2
            self._judge(now_s)
            self._hold(now_s)

    def heard(self, arrivals: Arrivals, now_s: float) -> None:
        shortest_s = None
        for offset, at_s in enumerate(arrivals.at_s):
            number = arrivals.first + offset & 0xFFFF
            at = number % _REMEMBERED
            if self._numbers[at] != number or self._sent_s[at] < self._from_s:
                continue
            if self._states[at] == _UNKNOWN:
                self._window.append(at)
                self._states[at] = _MISSING
                self._missing += 1
            if at_s is None or self._states[at] == _ARRIVED:
                continue  # it is spoken of again and again until it comes
            self._missing -= self._states[at] == _MISSING
            self._states[at] = _ARRIVED
            clock_s = self._unwrapped(at_s)
            self._arrived.append((clock_s, self._sizes[at]))
            delay_s = clock_s - self._sent_s[at]
            shortest_s = delay_s if shortest_s is None else min(shortest_s, delay_s)
        while self._window and self._sent_s[self._window[0]] < now_s - _WINDOW_S - self.rtt_s:
            self._leave_window()
        while self._arrived and self._arrived[-1][0] - self._arrived[0][0] > _WINDOW_S:
            self._arrived.popleft()
        if shortest_s is not None:
            self._delayed(shortest_s, now_s)
        self.loss = self._missing / max(20, len(self._window))
        self._judge(now_s)
        self._hold(now_s)

    def congested(self, now_s: float) -> bool:
        """More is sent than the network carries, and has been for long enough to be sure."""
        return (self._queued_since_s is not None and now_s - self._queued_since_s > _QUEUED_FOR_S) or (
            self._losing_since_s is not None and now_s - self._losing_since_s > _LOSING_FOR_S
        )

    @property
    def delivered_bps(self) -> float:
        """Of the last second; 0 where the feedback doesn't say."""
        if len(self._arrived) < 2:
            return 0.0
        lasted_s = max(self._arrived[-1][0] - self._arrived[0][0], 0.1)
        return sum(size for _, size in self._arrived) * 8 / lasted_s

    def _hold(self, now_s: float) -> None:
        """It rises at once and falls late, as each change moves the picture."""
        self._usual_loss += (self.loss - self._usual_loss) / _LOSS_SAMPLES
        rounds = sum(self._usual_loss >= loss for loss in _REPAIRED_IN)
        hold_s = min(rounds * 1.1 * self.rtt_s + _PICTURE_S, _LONGEST_HOLD_S) if rounds else 0.0
        if hold_s > 1.2 * self.hold_s or now_s - self._held_s > _HELD_FOR_S:
            self.hold_s = hold_s
        if hold_s > 0.8 * self.hold_s:
            self._held_s = now_s

    def forget(self, now_s: float) -> None:
        """What is sent from here on is something else."""
        self._from_s = now_s
        self._window.clear()
        self._missing = 0
        self._arrived.clear()
        self.loss = self.queue_s = 0.0
        self._queued_since_s = self._losing_since_s = None

    def _leave_window(self) -> None:
        at = self._window.popleft()
        if self._states[at] == _MISSING:
            self._missing -= 1
            self._states[at] = _LATE

    def _unwrapped(self, at_s: float) -> float:
        clock_s = at_s + self._turn_s
        if self._clock_s is not None and clock_s < self._clock_s - _CLOCK_S / 2:
            self._turn_s += _CLOCK_S
            clock_s += _CLOCK_S
        self._clock_s = clock_s
        return clock_s

    def _delayed(self, delay_s: float, now_s: float) -> None:
        if not self._delays_s or now_s - self._delays_s[-1][0] > 1.0:
            self._delays_s.append((now_s, delay_s))
            while now_s - self._delays_s[0][0] > _BASE_S:
                self._delays_s.popleft()
        elif delay_s < self._delays_s[-1][1]:
            self._delays_s[-1] = self._delays_s[-1][0], delay_s
        self.queue_s = delay_s - min(base_s for _, base_s in self._delays_s)

    def _judge(self, now_s: float) -> None:
        if self.queue_s < _QUEUE_S:
            self._queued_since_s = None
        elif self._queued_since_s is None:
            self._queued_since_s = now_s
        short = self.estimate_bps is not None and self.estimate_bps < _ESTIMATED * self.sent_bps
        if self.loss < (_ESTIMATE_LOSS if short else _LOSS):
            self._losing_since_s = None
        elif self._losing_since_s is None:
            self._losing_since_s = now_s
