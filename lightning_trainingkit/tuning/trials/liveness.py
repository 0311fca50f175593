"""Which attempts of other workers are dead, judged by this worker's own clock alone."""

import time
from collections.abc import Callable, Hashable, Mapping

__all__ = ["Watch"]


class Watch:
    """Remembers since when a heartbeat has not changed.

    A heartbeat is a counter that its worker raises. No time of another machine is compared. Between two looks, at most
    a third of ``grace`` counts as time without a change: while this worker was stopped, or the storage out of reach, it
    saw no heartbeat of anybody.

    Args:
        grace: Seconds without a change after which an attempt counts as dead.
        clock: The clock, in seconds.

    Example:
        >>> now = 0.0
        >>> watch = Watch(30.0, clock=lambda: now)
        >>> for now in (0.0, 10.0, 20.0, 30.0):
        ...     dead = watch.look({7: "worker 3"})
        >>> dead
        [7]
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.grace = grace
        self._clock = clock
        self._last_look: float | None = None
        self._seen: dict[int, tuple[Hashable, float]] = {}  # the counter, and for how long it has not changed

    def look(self, heartbeats: Mapping[int, Hashable]) -> list[int]:
        """Look at all running attempts of others.

        Args:
            heartbeats: Number of each running trial, and its counter; None if it has none yet.

        Returns:
            The numbers of the dead ones.
        """
        now = self._clock()
        passed = 0.0 if self._last_look is None else min(now - self._last_look, self.grace / 3)
        self._last_look = now
        for number, counter in heartbeats.items():
            known = self._seen.get(number)
            self._seen[number] = (counter, known[1] + passed if known is not None and known[0] == counter else 0.0)
        self._seen = {number: self._seen[number] for number in heartbeats}
        return [number for number, (_, unchanged) in self._seen.items() if unchanged >= self.grace]
