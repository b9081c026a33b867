"""A client of the endpoint, for programs in Python.

client = Client("http://127.0.0.1:8000")
restored = client.restore("rainy.jpg", steps=3)
Path("restored.jpg").write_bytes(restored.data)
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from diffuir_core import UserError

SECONDS_BETWEEN_LOOKS = 2.0


class ServerProblem(UserError):  # noqa: N818 - RFC 9457 calls it so
    """The server's own sentence. status: of HTTP. kind: the last word of its type. request_id: of its log."""

    def __init__(self, status: int, kind: str, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.request_id = request_id


@dataclass(frozen=True)
class RestoredPhoto:
    """A restored photo's file, its media type, and the headers that tell how it came about."""

    data: bytes
    media_type: str
    headers: Mapping[str, str]


class Client:
    """Of the server at `url`.

    key: an API key; None for DIFFUIR_API_KEY of the environment, where there is one. retries: how often a server
    that has no room is asked again, after the seconds that it names. timeout: seconds that an answer may take.
    Raises `UserError` for a URL or a key that can't be used.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        retries: int = 5,
        timeout: float = 90.0,
    ) -> None:
        self._url = _checked_url(url)
        self._timeout = timeout
        self._session = requests.Session()
        # What names a Retry-After, and what was never sent; no answer that does not come, which may be under way.
        retry = Retry(
            total=retries, read=False, allowed_methods=None, backoff_factor=0.5, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        key = key or os.environ.get("DIFFUIR_API_KEY")
        if key:
            if not (key.isascii() and key.isprintable()):
                raise UserError(
                    "the API key holds what no header can: give it without line breaks and accents"
                )
            self._session.headers["Authorization"] = f"Bearer {key}"

    def restore(
        self, photo: bytes | bytearray | memoryview | str | os.PathLike[str], **parameters: Any
    ) -> RestoredPhoto:
        """Restore a photo, its bytes or its file; parameters: those of POST /v1/restore.

        Raises `ServerProblem` with what the server says, and `UserError` where the file can't be read or no server
        answers.
        """
        data = _read(photo) if isinstance(photo, str | os.PathLike) else bytes(memoryview(photo))
        answer = self._ask("POST", "/v1/restore", params=_query(parameters), data=data)
        if "Diffuir-Model" not in answer.headers:
            raise self._stranger(answer)
        return RestoredPhoto(answer.content, answer.headers["Content-Type"], answer.headers)

    def models(self) -> list[dict[str, Any]]:
        """The models that a request may name."""
        return self._told("GET", "/v1/models", "models")["models"]

    def submit(self, source: str | list[str], target: str, **parameters: Any) -> str:
        """Begin a job, and return its id; parameters: those of POST /v1/jobs."""
        body = {"source": source, "target": target, **parameters}
        return self._told("POST", "/v1/jobs", "id", json=body)["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        return self._told("GET", f"/v1/jobs/{quote(job_id, safe='')}", "status")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a job."""
        return self._told("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", "status")

    def wait(self, job_id: str) -> dict[str, Any]:
        """How a job stands at its end."""
        while (job := self.job(job_id))["status"] in ("pending", "running"):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return job

    def _told(self, method: str, path: str, wanted: str, **more: Any) -> dict[str, Any]:
        """An answer in JSON, which has `wanted`."""
        answer = self._ask(method, path, **more)
        told = _json(answer)
        if wanted not in told:
            raise self._stranger(answer)
        return told

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            answer = self._session.request(method, self._url + path, timeout=self._timeout, **more)
        except requests.ReadTimeout as error:
            raise UserError(
                f"{self._url} did not answer within {self._timeout:g} s: give the client a longer timeout"
            ) from error
        except requests.RequestException as error:
            reason = type(error).__name__
            raise UserError(f"no server answers at {self._url} ({reason}): check its address") from error
        if answer.ok:
            return answer
        problem = _json(answer)
        if not {"type", "detail", "request_id"} <= set(problem):
            raise self._stranger(answer)
        kind = str(problem["type"]).rpartition(":")[2]
        raise ServerProblem(answer.status_code, kind, problem["detail"], problem["request_id"])

    def _stranger(self, answer: requests.Response) -> ServerProblem:
        detail = f"{self._url} answers {answer.status_code} and is no endpoint of DiffUIR: check its address"
        return ServerProblem(answer.status_code, "unknown", detail, "")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise UserError(f"{url!r} is no server's address: give one like http://127.0.0.1:8000")
    return url.rstrip("/")


def _read(photo: str | os.PathLike[str]) -> bytes:
    try:
        return Path(photo).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{os.fspath(photo)} can't be read ({reason}): give a photo's file, or its bytes"
        ) from error


def _json(answer: requests.Response) -> dict[str, Any]:
    """An object in JSON; nothing where it is none."""
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _query(parameters: dict[str, Any]) -> dict[str, Any]:
    """As a query has them: true and false in JSON's words."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in parameters.items()
        if value is not None
    }
