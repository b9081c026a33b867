"""The routes and the gateway behind them in this process, with a model that records its requests."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from diffuir_platform.serve import ServeSettings
from diffuir_platform.serve.api.routes import build_api
from diffuir_platform.serve.catalogue import Catalogue
from diffuir_platform.serve.gateway.access import KEYS
from diffuir_platform.serve.gateway.gateway import UNCERTAINTY, Gateway
from diffuir_platform.serve.model import ModelOptions, Restored, work_units

HOST = [(b"host", b"localhost")]
METHODS = ("get", "post", "delete")


@dataclass
class Models:
    """The part of a deployment handle that a gateway uses; took: seconds that it reports for each photo."""

    took: float = 0.1
    asked: list[ModelOptions] = field(default_factory=list)

    @property
    def restore(self) -> Models:
        return self

    def options(self, **_: Any) -> Models:
        return self

    async def remote(self, pixels: np.ndarray, options: ModelOptions) -> Restored:
        self.asked.append(options)
        return Restored(pixels, None, None, "float32", 0.0, self.took, 1)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> tuple[int, str]:
        assert self.headers["content-type"] == "application/problem+json"
        return self.status, self.headers["diffuir-problem"]

    @property
    def detail(self) -> str:
        return json.loads(self.body)["detail"]


class Served:
    """The application without a server."""

    def __init__(self, **settings: Any) -> None:
        given = ServeSettings(**settings)
        self.models = Models()
        self.gateway = Gateway(given, Catalogue.of(given), self.models)
        self.gateway.is_ready = True
        self.app = build_api(self.gateway)

    def ask(self, method: str, path: str, body: bytes = b"", query: Any = ()) -> Answer:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asked = urlencode(query).encode()
        scope = {"type": "http", "method": method, "path": path, "query_string": asked, "headers": HOST}
        asyncio.run(self.app(scope, receive, send))
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:]))

    def restore(self, body: bytes, *query: tuple[str, object]) -> Answer:
        return self.ask("POST", "/v1/restore", body, query)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.delenv(KEYS, raising=False)
    return Served(most_steps=7)


def png(height: int = 8, width: int = 8, channels: int = 3) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, channels), 99, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_photo_comes_back(served: Served) -> None:
    answer = served.restore(png(), ("steps", 2))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert served.models.asked[0].steps == 2


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/v1/models", "/healthz", "/readyz"])
def test_head_is_answered_as_get_without_the_body(served: Served, path: str) -> None:
    served.gateway.probe = lambda: asyncio.sleep(0, 0.01)
    get, head = served.ask("GET", path), served.ask("HEAD", path)
    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert int(head.headers["content-length"]) == len(get.body) > 0


def test_head_of_what_takes_no_get_is_405(served: Served) -> None:
    assert served.ask("HEAD", "/v1/restore").status == 405


@pytest.mark.parametrize(
    ("photo", "format"), [(png(channels=4), "jpeg"), (png(1, 16_384), "webp")], ids=["alpha", "long side"]
)
def test_a_format_that_cannot_hold_the_photo_is_told_before_it_is_restored(
    served: Served, photo: bytes, format: str
) -> None:
    answer = served.restore(photo, ("format", format))
    assert answer.problem == (422, "parameter")
    assert answer.detail.startswith("format: ")
    assert served.models.asked == []
    assert served.restore(photo, ("format", "tiff")).status == 200


def test_a_parameter_that_is_given_twice_is_refused(served: Served) -> None:
    answer = served.restore(png(), ("steps", 2), ("steps", 3))
    assert (answer.problem, answer.detail) == ((422, "parameter"), "steps: give it once")
    assert served.models.asked == []


def learn(served: Served, side: int, large: int, seconds: float) -> None:
    """Measure a photo of `side`, so that one of `large` is expected to take so many seconds."""
    small = work_units(side, side, 3)
    served.gateway.admission.learn("shipped", small, seconds * small / work_units(large, large, 3))


@pytest.mark.parametrize(
    ("side", "times", "tried"),
    [(8, 0.9 * UNCERTAINTY, True), (8, 1.1 * UNCERTAINTY, False), (512, 0.9, True), (512, 1.1, False)],
)
def test_a_photo_is_too_slow_for_good_only_where_that_is_known(
    served: Served, side: int, times: float, tried: bool
) -> None:
    """A 413 is final, and at first the time of large photos is guessed from a small one."""
    learn(served, side, 512, times * served.gateway.settings.timeout)
    answer = served.restore(png(512, 512))
    assert tried == (answer.status == 200)
    assert tried or answer.problem == (413, "too-slow")


def test_a_slow_photo_is_told_to_come_when_a_model_is_free(served: Served) -> None:
    learn(served, 8, 512, 2 * served.gateway.settings.timeout)
    with served.gateway.admission.work("shipped", work_units(40, 40, 3)):
        answer = served.restore(png(512, 512))
    assert answer.problem == (503, "busy-wait")
    assert int(answer.headers["retry-after"]) <= 3
    assert served.restore(png(512, 512)).status == 200


def test_the_description_is_of_what_is_sent(served: Served) -> None:
    described = json.loads(served.ask("GET", "/openapi.json").body)
    assert "HTTPValidationError" not in json.dumps(described)
    for path, operations in described["paths"].items():
        for operation in (operations[method] for method in METHODS if method in operations):
            answers = operation["responses"]
            assert {"400", "405", "431", "500", "503"} <= set(answers), path
            assert all("X-Request-ID" in answer["headers"] for answer in answers.values()), path
            problems = [answer for status, answer in answers.items() if status >= "400"]
            assert all("Diffuir-Problem" in answer["headers"] for answer in problems), path
            assert "Retry-After" in answers["503"]["headers"], path
            assert "401" not in answers or "WWW-Authenticate" in answers["401"]["headers"], path
    of_job = described["paths"]["/v1/jobs/{job_id}"]
    assert "422" not in of_job["get"]["responses"]
    assert "422" not in of_job["delete"]["responses"]
    assert "408" in described["paths"]["/v1/jobs"]["post"]["responses"]


def test_the_headers_of_an_answer_are_described(served: Served) -> None:
    restore = served.app.openapi()["paths"]["/v1/restore"]["post"]
    described = restore["responses"]["200"]["headers"]
    sent = served.restore(png()).headers
    own = {name for name in sent if name.startswith("diffuir-") or name == "server-timing"}
    assert own
    assert own <= {name.lower() for name in described}


def test_the_bodies_and_limits_are_described(served: Served) -> None:
    paths = served.app.openapi()["paths"]
    restore, jobs = paths["/v1/restore"]["post"], paths["/v1/jobs"]["post"]
    assert "*/*" in restore["requestBody"]["content"], "as what curl sends it"
    of_job = jobs["requestBody"]["content"]["application/json"]["schema"]["properties"]
    one, several = of_job["source"]["anyOf"]
    assert of_job["source"]["description"]
    assert (one["maxLength"], several["maxItems"]) == (4096, 10_000)
    (steps,) = (one["schema"] for one in restore["parameters"] if one["name"] == "steps")
    assert steps["anyOf"][0]["maximum"] == of_job["steps"]["anyOf"][0]["maximum"] == 7
