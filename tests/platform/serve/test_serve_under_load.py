"""The endpoint under more load than it can take, with processes killed and replaced under way."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from support.serving import POISON, Endpoint, stub_endpoint

pytestmark = pytest.mark.slow

COST = 0.1
"""Seconds that the model takes for one photo."""


def png(red: int = 9, side: int = 32) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), (red, 7, 5), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that scales from one replica to three at once, and back soon."""
    settings = {"max_wait": 0.5, "max_replicas": 3, "upscale_delay": 0.5, "downscale_delay": 2.0}
    with stub_endpoint(COST, **settings) as endpoint:
        yield endpoint


class Load:
    """Clients that send requests without a pause until the block ends; a context manager."""

    def __init__(self, endpoint: Endpoint, clients: int) -> None:
        self._endpoint = endpoint
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._clients = clients
        self.answers: Counter[str] = Counter()
        self.problems: list[str] = []

    def __enter__(self) -> Load:
        self._asking = [self._pool.submit(self._ask) for _ in range(self._clients)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for asking in self._asking:
            asking.result(120)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._endpoint.restore(png())
            except requests.ConnectionError as error:
                self.answers[type(error).__name__] += 1
                continue
            kind = "" if answer.ok else " " + answer.json()["type"].rpartition(":")[2]
            self.answers[f"{answer.status_code}{kind}"] += 1
            if kind.startswith(" busy"):
                assert int(answer.headers["Retry-After"]) >= 1
            if not answer.ok:
                time.sleep(0.05)  # less than it was asked to, and no busy loop

    def until(self, answer: str, count: int = 1, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while self.answers[answer] < count:
            assert time.monotonic() < deadline, self.answers
            time.sleep(0.05)


def until_models(endpoint: Endpoint, count: int, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while (models := endpoint.models_running()) != count:
        assert time.monotonic() < deadline, f"{models} models after {seconds} s, not {count}"
        time.sleep(0.5)


def test_what_it_cannot_do_is_refused_at_once_and_the_rest_is_done(endpoint: Endpoint) -> None:
    """The load is more than three replicas can take: it scales to three, and to one again after it."""
    with Load(endpoint, 24) as load:
        load.until("503 busy-wait", 20)
        until_models(endpoint, 3)
        load.until("200", 100)
    assert set(load.answers) <= {"200", "503 busy-wait"}, load.answers
    until_models(endpoint, 1)


def test_a_client_that_goes_away_frees_its_place(endpoint: Endpoint) -> None:
    """Ten requests of clients that have gone would otherwise delay the next one for a second."""

    def gone() -> None:
        with suppress(requests.RequestException):
            requests.post(f"{endpoint.url}/v1/restore", data=png(), timeout=0.05)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            pool.submit(gone)
    deadline = time.monotonic() + 30
    while (answer := endpoint.restore(png())).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    queued = float(answer.headers["Server-Timing"].split("queue;dur=")[1].split(",")[0])
    assert queued < 1000 * 0.5


def test_a_deadline_that_cannot_be_kept_is_told(endpoint: Endpoint) -> None:
    answer = endpoint.restore(png(), timeout=0.01)
    assert (answer.status_code, answer.json()["type"]) in (
        (504, "urn:diffuir:timeout"),
        (413, "urn:diffuir:too-slow"),
    )


def test_a_photo_that_kills_its_process_is_told_so_and_the_next_is_restored(endpoint: Endpoint) -> None:
    answer = endpoint.restore(png(POISON))
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == "urn:diffuir:died"
    deadline = time.monotonic() + 120
    while endpoint.restore(png()).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_killed_models_lose_at_most_what_they_had(endpoint: Endpoint) -> None:
    with Load(endpoint, 6) as load:
        until_models(endpoint, 2)
        load.until("200", 20)
        victim = min(endpoint.processes("ServeReplica:diffuir:Model"), key=psutil.Process.create_time)
        victim.kill()
        done = load.answers["200"]
        load.until("200", done + 60)
    assert set(load.answers) <= {"200", "503 busy-wait", "503 died", "503 busy-queue"}, load.answers
    assert load.answers["503 died"] <= 6, load.answers


def test_a_rolling_update_loses_no_request(endpoint: Endpoint) -> None:
    with Load(endpoint, 3) as load:
        load.until("200", 5)
        before = endpoint.processes("ServeReplica:diffuir:")
        told = endpoint.tell("update " + json.dumps({"batch_wait": 0.001}))
        assert told == "updated"
        load.until("200", load.answers["200"] + 20)
    assert set(load.answers) <= {"200", "503 busy-wait"}, load.answers
    deadline = time.monotonic() + 120
    while any(process.is_running() for process in before):
        assert time.monotonic() < deadline, "processes of the old settings are still there"
        time.sleep(0.5)
    assert endpoint.restore(png()).status_code == 200


def test_prometheus_can_read_what_it_does(endpoint: Endpoint) -> None:
    with Load(endpoint, 24) as load:
        load.until("503 busy-wait")
        load.until("200")
    port = endpoint.tell("metrics")
    wanted = (
        "ray_diffuir_serve_requests_total{",
        "ray_diffuir_serve_refused_total{",
        "ray_diffuir_serve_seconds_bucket{",
        "ray_diffuir_serve_batch_size_bucket{",
        "ray_diffuir_serve_pixels_total{",
        "ray_diffuir_serve_open{",
    )
    deadline = time.monotonic() + 60
    while True:
        text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        missing = [name for name in wanted if name not in text]
        if not missing:
            break
        assert time.monotonic() < deadline, f"{missing} in none of {len(text)} characters"
        time.sleep(2)
    assert 'status="200"' in text
    assert 'stage="restore"' in text


def test_what_was_begun_is_finished_when_it_is_told_to_end() -> None:
    """Requests that come meanwhile get a 503 with Retry-After, until the port closes."""
    meanwhile: Counter[str] = Counter()

    def ask(endpoint: Endpoint) -> None:
        with suppress(requests.ConnectionError):
            while True:
                answer = requests.get(f"{endpoint.url}/v1/models", timeout=30)
                kind = "" if answer.ok else " " + answer.json()["type"].rpartition(":")[2]
                meanwhile[f"{answer.status_code}{kind}"] += 1
                time.sleep(0.05)

    with ThreadPoolExecutor(3) as pool:
        with stub_endpoint(4.0, max_wait=10.0) as endpoint:
            begun = [pool.submit(endpoint.restore, png()) for _ in range(2)]
            asking = pool.submit(ask, endpoint)
            time.sleep(1.0)
        answers = [asked.result() for asked in begun]
        asking.result()
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text for answer in answers]
    assert set(meanwhile) == {"200", "503 busy-server"}, meanwhile


@pytest.fixture(scope="module")
def idle() -> Iterator[Endpoint]:
    """An endpoint that scales to zero, whose model takes four photos at once."""
    with stub_endpoint(
        0.3, 4, max_wait=5.0, batch_wait=0.05, min_replicas=0, downscale_delay=0.5
    ) as endpoint:
        yield endpoint


def test_without_requests_there_is_no_model_and_the_next_one_brings_it_back(idle: Endpoint) -> None:
    for _ in range(2):
        assert idle.restore(png()).status_code == 200
        until_models(idle, 0)


def test_photos_of_a_size_go_through_the_model_together(idle: Endpoint) -> None:
    """With four photos in a batch, eight clients wait for two batches and not for eight."""
    idle.restore(png())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: idle.restore(png()), range(8)))
    assert all(answer.status_code == 200 for answer in answers)
    shares = [float(a.headers["Server-Timing"].split("restore;dur=")[1].split(",")[0]) for a in answers]
    assert min(shares) < 0.3 * 1000 / 2
