"""Malformed requests of all kinds: each gets a proper response, no process ends, and no memory stays reserved.

Bodies, headers, parameters, paths, and connections that are slow or cut. DIFFUIR_FUZZ: number of requests. Each is
reproducible: `attempt(1234)` returns what was sent as number 1234.
"""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from support.malformed import attempt
from support.malformed_bodies import (
    DOCUMENTED,
    KEY,
    MAX_BYTES,
    MAX_OPEN,
    MIB,
    PHOTO_PATH,
    SEED,
    UPLOAD_TIMEOUT,
    Attempt,
    message,
    photos,
)
from support.serving import Endpoint, stub_endpoint

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("DIFFUIR_FUZZ", 400))
AT_ONCE = 8
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
SETTINGS = {
    "max_bytes": MAX_BYTES,
    "max_pixels": 2**17,
    "max_side": 2048,
    "max_open": MAX_OPEN,
    "held_bytes": MAX_OPEN * MAX_BYTES,
    "upload_timeout": UPLOAD_TIMEOUT,
    "max_wait": 30,
    "timeout": 30,
    "device": "cpu",
}
GROWTH = 24 * MIB
"""Largest growth of the resident memory of all processes together, from the first third to the last, bytes; 5 to
10 MiB are usual."""
RESPONSE_SECONDS = 60
"""Longest wait for a response, seconds, on a machine that is busy with something else."""
IDLE_SECONDS = 2.0
"""Seconds without a response after which the server waits for more of a request."""


@dataclass(frozen=True)
class Outcome:
    status: int | None
    kind: str = ""
    fault: str = ""


def send(address: tuple[str, int], sent: Attempt) -> Outcome:
    """Send a request and return its outcome."""
    with socket.create_connection(address, RESPONSE_SECONDS) as connection:
        connection.settimeout(RESPONSE_SECONDS)
        try:
            for part in sent.parts:
                connection.sendall(part)
                time.sleep(sent.pause)
            if sent.end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if sent.end in ("close", "reset"):
                return Outcome(None)
            if sent.end == "half" and not select.select([connection], [], [], IDLE_SECONDS)[0]:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server responded and closed early: the response may still be there
        response = http.client.HTTPResponse(connection, method=sent.method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionError, http.client.RemoteDisconnected):
            return Outcome(None)
        except TimeoutError:
            return Outcome(None, fault=f"no response within {RESPONSE_SECONDS} s")
        except http.client.HTTPException as error:
            return Outcome(None, fault=f"no HTTP: {error!r}")
        return outcome_of(response, body, sent)


def outcome_of(response: http.client.HTTPResponse, body: bytes, sent: Attempt) -> Outcome:
    status, kind = response.status, response.headers.get("Diffuir-Problem", "")
    fault = ""
    if status not in DOCUMENTED:
        fault = f"status {status}: {body[:300]!r}"
    elif status >= 400 and sent.method != "HEAD":
        fault = fault_of_problem(response, body)
    return Outcome(status, kind, fault)


def fault_of_problem(response: http.client.HTTPResponse, body: bytes) -> str:
    """The fault in the body of an error; empty if there is none."""
    if response.headers["Content-Type"] != "application/problem+json":
        return f"{response.status} is no problem: {body[:300]!r}"
    problem = json.loads(body)
    right = (
        set(problem) == {"type", "title", "status", "detail", "request_id"}
        and problem["status"] == response.status
        and problem["type"] == f"urn:diffuir:{response.headers['Diffuir-Problem']}"
        and problem["request_id"] == response.headers["X-Request-ID"] != ""
        and len(problem["detail"].splitlines()) == 1
        and len(problem["detail"]) < 500
        and "Traceback" not in problem["detail"]
        and (
            response.status not in (429, 503)
            or problem["type"].endswith((":lost", ":died"))
            or int(response.headers["Retry-After"]) > 0
        )
    )
    return "" if right else f"not a proper problem: {response.headers.items()} {body[:600]!r}"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    environment = {
        "DIFFUIR_API_KEYS": f"fuzz:{KEY}",
        # Have glibc return freed memory to the system, so that only leaks stay.
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_TRIM_THRESHOLD_": "131072",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with stub_endpoint(0.0, 4, **SETTINGS) as endpoint:
            yield endpoint


def address_of(endpoint: Endpoint) -> tuple[str, int]:
    parts = urlsplit(endpoint.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def memory(endpoint: Endpoint) -> dict[int, int]:
    """Process id -> resident bytes, for the processes that handle requests."""
    processes: list[psutil.Process] = [
        process for name in ("ProxyActor", "ServeReplica") for process in endpoint.processes(name)
    ]
    return {process.pid: process.memory_info().rss for process in processes}


def restored(endpoint: Endpoint) -> bool:
    """Whether a valid photo is restored as the stub does it: darker by one."""
    answer = requests.post(
        f"{endpoint.url}{PHOTO_PATH}", data=photos()["PNG"], headers=AUTHORIZED, timeout=RESPONSE_SECONDS
    )
    if answer.status_code != 200:
        return False
    before, after = (np.asarray(Image.open(io.BytesIO(data))) for data in (photos()["PNG"], answer.content))
    return np.array_equal(after, np.maximum(before, 1) - 1)


def fits_what_is_allowed(endpoint: Endpoint) -> bool:
    """Whether the allowed number of requests with the allowed bytes is accepted: then nothing stays reserved."""
    head, _ = message(length=MAX_BYTES)
    with ExitStack() as stack:
        held = []
        for _ in range(MAX_OPEN):
            connection = stack.enter_context(socket.create_connection(address_of(endpoint), RESPONSE_SECONDS))
            connection.sendall(head + bytes(MAX_BYTES - 1))
            held.append(connection)
        # The proxy waits a moment for small bodies: one more request would overtake these.
        time.sleep(0.5)
        one_more = Outcome(None)
        until = time.monotonic() + UPLOAD_TIMEOUT
        while one_more.kind != "busy-open" and time.monotonic() < until:
            one_more = send(address_of(endpoint), Attempt("one more", message(photos()["PNG"])))
        answered, _, _ = select.select(held, [], [], 0.5)
        return one_more.kind == "busy-open" and not answered


def eventually(holds: Callable[[Endpoint], bool], endpoint: Endpoint, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not holds(endpoint):
        if time.monotonic() > until:
            return False
        time.sleep(1)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.timeout(300 + REQUESTS)
def test_malformed_requests_are_answered_and_leave_nothing_behind(endpoint: Endpoint) -> None:
    assert eventually(restored, endpoint)
    before = memory(endpoint)
    assert len(before) == 3, "a server, a gateway and a model"
    faults: list[str] = []
    ends: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    marks: list[dict[int, int]] = []

    def one(number: int) -> tuple[int, Attempt, Outcome]:
        sent = attempt(number)
        return number, sent, send(address_of(endpoint), sent)

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        third = math.ceil(REQUESTS / 3)
        for start in range(0, REQUESTS, third):
            for number, sent, outcome in pool.map(one, range(start, min(start + third, REQUESTS))):
                fault = outcome.fault
                if not fault and outcome.status not in sent.expected:
                    fault = f"{outcome.status} {outcome.kind} is not of {sorted(map(str, sent.expected))}"
                if fault:
                    faults.append(f"{number}, {sent.what}: {fault}")
                statuses[f"{outcome.status or 'none'} {outcome.kind}".strip()] += 1
                ends[f"{sent.what}: {outcome.status}"] += 1
            assert eventually(restored, endpoint)
            time.sleep(1)
            marks.append(memory(endpoint))
    took = time.monotonic() - began
    grown = {pid: (marks[-1][pid] - marks[0][pid]) / MIB for pid in before if pid in marks[-1]}
    print(f"{REQUESTS} in {took:.0f} s", dict(sorted(statuses.items())), sep="\n")
    print({pid: [round(mark.get(pid, 0) / MIB, 1) for mark in (before, *marks)] for pid in before})
    assert not faults, "\n".join([f"{len(faults)} faults of seed {SEED}:", *faults[:20]])
    assert set(marks[-1]) == set(before), "a process has ended"
    assert sum(grown.values()) * MIB < GROWTH, grown
    assert requests.get(f"{endpoint.url}/readyz", timeout=30).status_code == 200
    assert eventually(fits_what_is_allowed, endpoint), "places or bytes stay reserved"
    assert eventually(restored, endpoint)
    # If all requests ended in the same way, the test would show nothing.
    assert {200, 400, 401, 403, 404, 405, 413, 415, 422} <= {int(s[:3]) for s in statuses if s[0] != "n"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Request-Timeout-Seconds", "0.0001"),
        ("X-Request-Timeout-Seconds", b"\xff"),
        ("X-Request-Disconnect-Disabled", b"\xff"),
        ("Serve-Multiplexed-Model-Id", b"\xff"),
        ("X-Session-Id", b"\xff"),
        ("X-Request-Id", b"\xff"),
    ],
)
def test_a_header_that_serve_reads_is_not_a_clients_to_send(
    endpoint: Endpoint, name: str, value: str | bytes
) -> None:
    sent = Attempt(name, message(photos()["PNG"], [(name, value)]))
    assert send(address_of(endpoint), sent).status == 200


@pytest.mark.parametrize("path", ["/v1/restore/", "//v1/restore", "*"])
def test_another_way_to_write_a_path_is_not_there(endpoint: Endpoint, path: str) -> None:
    outcome = send(address_of(endpoint), Attempt(path, message(photos()["PNG"], path=path)))
    assert (outcome.status, outcome.kind, outcome.fault) == (404, "http", "")


def test_a_websocket_is_refused_in_the_one_shape(endpoint: Endpoint) -> None:
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ]
    sent = Attempt("websocket", message(headers=headers, method="GET", length=0), method="GET")
    outcome = send(address_of(endpoint), sent)
    assert (outcome.status, outcome.kind, outcome.fault) == (404, "http", "")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/restore HTTP/1.1\r\nX-A: " + b"a" * 2**20,
        b"POST /v1/restore HTTP/1.1\r\n" + b"X: y\r\n" * 2**17,
        b"POST /" + b"a" * 2**20,
    ],
    ids=["header", "headers", "path"],
)
def test_a_head_that_does_not_end_is_refused(endpoint: Endpoint, head: bytes) -> None:
    outcome = send(address_of(endpoint), Attempt("head", [head], end="half"))
    # The response may be lost where data is still on its way when the connection is closed.
    assert (outcome.status, outcome.kind, outcome.fault) in ((431, "head", ""), (None, "", ""))
    assert restored(endpoint)


def test_a_request_whose_gateway_dies_is_told_so(endpoint: Endpoint) -> None:
    (gateway,) = endpoint.processes("ServeReplica:diffuir:Gateway")
    head, body = message(photos()["PNG"])
    with socket.create_connection(address_of(endpoint), RESPONSE_SECONDS) as connection:
        connection.sendall(head + body[:-1])
        time.sleep(0.5)
        gateway.kill()
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert fault_of_problem(response, response.read()) == ""
        assert (response.status, response.headers["Diffuir-Problem"]) == (503, "lost")
    assert eventually(restored, endpoint, 60)
