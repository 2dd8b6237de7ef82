"""What one viewer may cost the others: a token bucket."""


class Budget:
    """Full at first. The owner says what time it is, and refills it by time, by what it has sent, or both."""

    def __init__(self, *, capacity: float, per_s: float = 0.0) -> None:
        self._capacity = capacity
        self._per_s = per_s
        self._left = capacity
        self._at_s: float | None = None

    def add(self, amount: float) -> None:
        self._left = min(self._capacity, self._left + amount)

    def has(self, amount: float, now_s: float) -> bool:
        """Whether that much is left."""
        if self._at_s is not None:
            self.add((now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return amount <= self._left

    def take(self, amount: float, now_s: float) -> bool:
        """Whether that much was left; if not, nothing is taken."""
        if not self.has(amount, now_s):
            return False
        self._left -= amount
        return True
