"""Python client of the endpoint.

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

SECONDS_BETWEEN_POLLS = 2.0
"""Interval at which `Client.wait` asks for the state of a job, seconds."""


class ServerProblem(UserError):  # noqa: N818 - the name in RFC 9457
    """An error that the server reports; the message is its `detail`.

    status: HTTP status. kind: last word of the problem's type. request_id: id of the request in the server's log.
    """

    def __init__(self, status: int, kind: str, detail: str, request_id: str) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.request_id = request_id


@dataclass(frozen=True)
class RestoredPhoto:
    """The file of a restored photo, its media type, and the response headers that describe the restore."""

    data: bytes
    media_type: str
    headers: Mapping[str, str]


class Client:
    """A client of the server at `url`.

    key: an API key; None for the environment's DIFFUIR_API_KEY, if it is set. retries: how often a request is sent
    again to a server that is busy, after the seconds that it names. timeout: longest wait for a response, seconds.
    Raises `UserError` for a malformed URL or key.
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
        # Retries responses with Retry-After and requests that were never sent, but no request that was sent and
        # got no response: it may still be under way.
        retry = Retry(
            total=retries, read=False, allowed_methods=None, backoff_factor=0.5, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        key = key or os.environ.get("DIFFUIR_API_KEY")
        if key:
            if not (key.isascii() and key.isprintable()):
                raise UserError(
                    "the API key holds characters that a header can't: give it without line breaks and accents"
                )
            self._session.headers["Authorization"] = f"Bearer {key}"

    def restore(
        self, photo: bytes | bytearray | memoryview | str | os.PathLike[str], **parameters: Any
    ) -> RestoredPhoto:
        """Restore a photo, given as its bytes or its path; parameters: those of POST /v1/restore.

        Raises `ServerProblem` for an error of the server, and `UserError` where the file can't be read or no
        server answers.
        """
        data = _read(photo) if isinstance(photo, str | os.PathLike) else bytes(memoryview(photo))
        response = self._request("POST", "/v1/restore", params=_query(parameters), data=data)
        if "Diffuir-Model" not in response.headers:
            raise self._unknown_server(response)
        return RestoredPhoto(response.content, response.headers["Content-Type"], response.headers)

    def models(self) -> list[dict[str, Any]]:
        """The models that a request may name."""
        return self._request_json("GET", "/v1/models", "models")["models"]

    def submit(self, source: str | list[str], target: str, **parameters: Any) -> str:
        """Start a job and return its id; parameters: those of POST /v1/jobs."""
        body = {"source": source, "target": target, **parameters}
        return self._request_json("POST", "/v1/jobs", "id", json=body)["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        """The state of a job, as GET /v1/jobs/{id} returns it."""
        return self._request_json("GET", f"/v1/jobs/{quote(job_id, safe='')}", "status")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a job and return its state."""
        return self._request_json("DELETE", f"/v1/jobs/{quote(job_id, safe='')}", "status")

    def wait(self, job_id: str) -> dict[str, Any]:
        """Wait until a job ends and return its state."""
        while (job := self.job(job_id))["status"] in ("pending", "running"):
            time.sleep(SECONDS_BETWEEN_POLLS)
        return job

    def _request_json(self, method: str, path: str, required: str, **more: Any) -> dict[str, Any]:
        """The JSON object of a response, which has to have the key `required`."""
        response = self._request(method, path, **more)
        found = _json(response)
        if required not in found:
            raise self._unknown_server(response)
        return found

    def _request(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            response = self._session.request(method, self._url + path, timeout=self._timeout, **more)
        except requests.ReadTimeout as error:
            raise UserError(
                f"{self._url} did not answer within {self._timeout:g} s: give the client a longer timeout"
            ) from error
        except requests.RequestException as error:
            reason = type(error).__name__
            raise UserError(f"no server answers at {self._url} ({reason}): check its address") from error
        if response.ok:
            return response
        problem = _json(response)
        if not {"type", "detail", "request_id"} <= set(problem):
            raise self._unknown_server(response)
        kind = str(problem["type"]).rpartition(":")[2]
        raise ServerProblem(response.status_code, kind, problem["detail"], problem["request_id"])

    def _unknown_server(self, response: requests.Response) -> ServerProblem:
        detail = (
            f"{self._url} answers {response.status_code} and is no endpoint of DiffUIR: check its address"
        )
        return ServerProblem(response.status_code, "unknown", detail, "")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UserError(f"{url!r} is not the URL of a server: give one like http://127.0.0.1:8000")
    return url.rstrip("/")


def _read(photo: str | os.PathLike[str]) -> bytes:
    try:
        return Path(photo).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{os.fspath(photo)} can't be read ({reason}): give a photo's file, or its bytes"
        ) from error


def _json(response: requests.Response) -> dict[str, Any]:
    """The JSON object in a response's body; empty where it is none."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _query(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as a query: booleans as true and false, without those that are None."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in parameters.items()
        if value is not None
    }
