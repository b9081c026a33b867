"""Admission control of a gateway: what it accepts and what it refuses at once, by the time it would have to wait.

Waiting is counted in seconds of a model's work, not in requests: a large photo fills the queue as many small ones
do. Only the work that this gateway sent counts, so of several gateways each has its share of the models.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from .latency import LatencyModel

Limit = Literal["open", "memory", "wait"]
"""Limits of a gateway: open requests, memory for photos, waiting time."""


class LimitError(Exception):
    """A limit of the gateway is reached. retry_after: whole seconds after which there may be room, at least 1."""

    def __init__(self, limit: Limit, retry_after: float) -> None:
        super().__init__(limit)
        self.limit = limit
        self.retry_after = max(1, math.ceil(retry_after))


@dataclass(eq=False)
class Ticket:
    """The place of one photo in the queue.

    seconds: its expected work. begun: when a model began with it, None where none has. abandoned: nobody waits for
    it any more, but a model is working on it and cannot be stopped.
    """

    seconds: float
    begun: float | None = None
    abandoned: bool = False


class Admission:
    """Room for `max_open` requests, `held_bytes` of the data they hold, and `max_wait` seconds of waiting.

    `replicas`, the number of models that share the work, is kept up to date by the gateway.
    """

    def __init__(
        self, max_open: int, held_bytes: int, max_wait: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_open = max_open
        self._max_held = held_bytes
        self._max_wait = max_wait
        self._clock = clock
        self._held = 0
        self._open = 0
        self._tickets: dict[Ticket, None] = {}
        self._latencies: dict[str, LatencyModel] = {}
        self.replicas: float = 1.0

    @contextmanager
    def request(self) -> Iterator[Reservation]:
        """A place for one request, with its reservation of memory; raises `LimitError` where too many are open."""
        if self._open >= self._max_open:
            raise LimitError("open", max(self.wait(), 1.0))
        self._open += 1
        memory = Reservation(self)
        try:
            yield memory
        finally:
            self._open -= 1
            self._held -= memory.bytes

    def reserve(self, memory: Reservation, more: int) -> None:
        """Add `more` bytes to a request's reservation; raises `LimitError` where the memory is full."""
        if self._held + more > self._max_held:
            raise LimitError("memory", max(self.wait(), 1.0))
        self._held += more
        memory.bytes += more

    @contextmanager
    def work(self, model: str, units: float) -> Iterator[Ticket]:
        """A place in the queue for `units` of work of a model; raises `LimitError` where it would wait too long.

        A photo that is cancelled after a model has begun with it keeps its place until the model must be done.
        """
        wait = self.wait()
        if wait > self._max_wait:
            raise LimitError("wait", wait - self._max_wait)
        ticket = Ticket(self.expected(model, units))
        self._tickets[ticket] = None
        self._begin_first(self._clock())
        try:
            yield ticket
        except asyncio.CancelledError:
            ticket.abandoned = ticket.begun is not None
            raise
        finally:
            if not ticket.abandoned:
                del self._tickets[ticket]
                self._begin_first(self._clock())

    def expected(self, model: str, units: float) -> float:
        """Seconds that a model is expected to take for `units` of work; 0 before the first measurement."""
        return self._latencies[model].predict(units) if model in self._latencies else 0.0

    def is_measured(self, model: str) -> bool:
        """Whether there is any measurement of a model."""
        return model in self._latencies

    def is_measured_near(self, model: str, units: float) -> bool:
        """Whether a model was measured with about so much work; otherwise `expected` is a guess from far less."""
        return model in self._latencies and self._latencies[model].covers(units)

    def learn(self, model: str, units: float, seconds: float) -> None:
        """Take in a measurement: a model took `seconds` for `units` of work."""
        self._latencies.setdefault(model, LatencyModel()).learn(units, seconds)

    def wait(self) -> float:
        """Seconds after which a model would begin with a photo that came now."""
        now = self._clock()
        self._drop_finished(now)
        if len(self._tickets) < self.replicas:
            return 0.0
        left = sum(
            ticket.seconds - (0.0 if ticket.begun is None else min(now - ticket.begun, ticket.seconds))
            for ticket in self._tickets
        )
        return left / (self.replicas or 1.0)

    @property
    def open(self) -> int:
        """Number of open requests."""
        return self._open

    @property
    def queued(self) -> int:
        """Number of photos that a model works on or that wait for one."""
        return len(self._tickets)

    def _begin_first(self, now: float) -> None:
        """Mark the first photos, as many as there are models, as begun, each when it became one of them."""
        for ticket in itertools.islice(self._tickets, max(1, round(self.replicas))):
            if ticket.begun is None:
                ticket.begun = now

    def _drop_finished(self, now: float) -> None:
        """Drop abandoned photos that a model must be done with; those behind them have begun since."""
        for ticket in [ticket for ticket in self._tickets if ticket.abandoned]:
            assert ticket.begun is not None
            end = ticket.begun + ticket.seconds
            if end <= now:
                del self._tickets[ticket]
                self._begin_first(end)


class Reservation:
    """The part of a gateway's memory that one request has reserved, until the request ends."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def add(self, more: int) -> None:
        """Reserve `more` bytes; raises `LimitError` where the memory is full."""
        self._admission.reserve(self, more)
