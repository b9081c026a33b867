"""Ports for servers of the tests."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

FIRST, LAST = 20_000, 32_000
"""Range between the ports that Ray gives to its workers and those that the system gives to connections: a port of
theirs may be taken before the server that it is for has started."""


def free_port() -> int:
    """A port that nothing listens at."""
    while True:
        port = random.randrange(FIRST, LAST)
        with socket.socket() as listening, suppress(OSError):
            listening.bind(("127.0.0.1", port))
            return port
