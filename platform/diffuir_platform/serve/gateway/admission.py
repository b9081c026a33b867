"""What a gateway takes in and what it refuses at once, by the time that it would have to wait.

Waiting is counted in seconds of a model's work, not in requests: a large photo fills the queue as many small ones
do. Only what this gateway sent counts, so several gateways have their share of the models each.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .pace import Pace


class Refused(Exception):  # noqa: N818 - it names what happened
    """There is no room; why is one of the reasons below, retry_after in seconds."""

    def __init__(self, why: str, retry_after: float) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = max(1, math.ceil(retry_after))


OPEN, MEMORY, WAIT = "open", "memory", "wait"


@dataclass(eq=False)
class Ticket:
    """One photo's place: `seconds` of work that it is thought to be, begun at `begun` or not yet.

    left: nobody waits for it any more, but a model is on it and can't be stopped.
    """

    seconds: float
    begun: float | None = None
    left: bool = False


class Admission:
    """Room for `max_open` requests, `held_bytes` of what they hold, and `max_wait` seconds of waiting.

    replicas: how many models share the work; kept up by whoever knows.
    """

    def __init__(
        self, max_open: int, held_bytes: int, max_wait: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_open = max_open
        self._held_bytes = held_bytes
        self._max_wait = max_wait
        self._clock = clock
        self._held = 0
        self._open = 0
        self._tickets: dict[Ticket, None] = {}
        self._paces: dict[str, Pace] = {}
        self.replicas: float = 1.0

    @contextmanager
    def request(self) -> Iterator[Holding]:
        """A place for one request, and what it holds; raises `Refused` where too many are open."""
        if self._open >= self._max_open:
            raise Refused(OPEN, max(self.wait(), 1.0))
        self._open += 1
        holding = Holding(self)
        try:
            yield holding
        finally:
            self._open -= 1
            self._held -= holding.bytes

    def hold(self, holding: Holding, more: int) -> None:
        if self._held + more > self._held_bytes:
            raise Refused(MEMORY, max(self.wait(), 1.0))
        self._held += more
        holding.bytes += more

    @contextmanager
    def work(self, model: str, units: float) -> Iterator[Ticket]:
        """A place in the queue for `units` (pixels x steps) of a model; `Refused` where it would wait too long.

        One that is cancelled once a model has begun keeps its place until the model must be through with it.
        """
        wait = self.wait()
        if wait > self._max_wait:
            raise Refused(WAIT, wait - self._max_wait)
        ticket = Ticket(self.expected(model, units))
        self._tickets[ticket] = None
        self._begin_first(self._clock())
        try:
            yield ticket
        except asyncio.CancelledError:
            ticket.left = ticket.begun is not None
            raise
        finally:
            if not ticket.left:
                del self._tickets[ticket]
                self._begin_first(self._clock())

    def expected(self, model: str, units: float) -> float:
        """Seconds that a model is thought to take for that; 0 where nothing is known yet."""
        return self._paces[model].expected(units) if model in self._paces else 0.0

    def knows(self, model: str) -> bool:
        """Whether it has been told what a model takes."""
        return model in self._paces

    def has_seen(self, model: str, units: float) -> bool:
        """Whether what it takes for so much is more than a guess from far less."""
        return model in self._paces and self._paces[model].reaches(units)

    def learn(self, model: str, units: float, seconds: float) -> None:
        """A model took `seconds` for `units`."""
        self._paces.setdefault(model, Pace()).learn(units, seconds)

    def wait(self) -> float:
        """Seconds after which a model would begin with what comes now."""
        now = self._clock()
        self._forget(now)
        if len(self._tickets) < self.replicas:
            return 0.0
        left = sum(
            ticket.seconds - (0.0 if ticket.begun is None else min(now - ticket.begun, ticket.seconds))
            for ticket in self._tickets
        )
        return left / (self.replicas or 1.0)

    @property
    def open(self) -> int:
        """Requests at present."""
        return self._open

    @property
    def queued(self) -> int:
        """Photos that a model has or is to have."""
        return len(self._tickets)

    def _begin_first(self, now: float) -> None:
        """The first so many are with a model by now, each from when it became one of them."""
        for ticket in itertools.islice(self._tickets, max(1, round(self.replicas))):
            if ticket.begun is None:
                ticket.begun = now

    def _forget(self, now: float) -> None:
        """Those that were left and that a model must be through with: what stood behind them has begun since."""
        for ticket in [ticket for ticket in self._tickets if ticket.left]:
            assert ticket.begun is not None
            end = ticket.begun + ticket.seconds
            if end <= now:
                del self._tickets[ticket]
                self._begin_first(end)


class Holding:
    """What one request holds of the gateway's memory."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def add(self, more: int) -> None:
        """It holds so many bytes more until it ends; raises `Refused` where there is no room."""
        self._admission.hold(self, more)
