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
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        retries: int = 5,
        timeout: float = 90.0,
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._session = requests.Session()
        # What names a Retry-After, and what was never sent; no answer that does not come, which may be under way.
        retry = Retry(total=retries, read=0, allowed_methods=None, backoff_factor=0.5, raise_on_status=False)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        key = key or os.environ.get("DIFFUIR_API_KEY")
        if key:
            self._session.headers["Authorization"] = f"Bearer {key}"

    def restore(self, photo: bytes | str | os.PathLike[str], **parameters: Any) -> RestoredPhoto:
        """Restore a photo, its bytes or its file; parameters: those of POST /v1/restore.

        Raises `ServerProblem` with what the server says, and `UserError` where it does not answer.
        """
        data = photo if isinstance(photo, bytes) else Path(photo).read_bytes()
        answer = self._ask("POST", "/v1/restore", params=_query(parameters), data=data)
        return RestoredPhoto(answer.content, answer.headers["Content-Type"], answer.headers)

    def models(self) -> list[dict[str, Any]]:
        """The models that a request may name."""
        return self._ask("GET", "/v1/models").json()["models"]

    def submit(self, source: str | list[str], target: str, **parameters: Any) -> str:
        """Begin a job, and return its id; parameters: those of POST /v1/jobs."""
        body = {"source": source, "target": target, **parameters}
        return self._ask("POST", "/v1/jobs", json=body).json()["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        """How a job stands."""
        return self._ask("GET", f"/v1/jobs/{job_id}").json()

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Stop a job."""
        return self._ask("DELETE", f"/v1/jobs/{job_id}").json()

    def wait(self, job_id: str) -> dict[str, Any]:
        """How a job stands at its end."""
        while (job := self.job(job_id))["status"] in ("pending", "running"):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return job

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            answer = self._session.request(method, self._url + path, timeout=self._timeout, **more)
        except requests.RequestException as error:
            reason = type(error).__name__
            raise UserError(f"no server answers at {self._url} ({reason}): check its address") from error
        if answer.ok:
            return answer
        try:
            problem = answer.json()
            kind = problem["type"].rpartition(":")[2]
            raise ServerProblem(answer.status_code, kind, problem["detail"], problem["request_id"])
        except (ValueError, KeyError) as error:
            detail = (
                f"{self._url} answers {answer.status_code} and is no endpoint of DiffUIR: check its address"
            )
            raise ServerProblem(answer.status_code, "unknown", detail, "") from error


def _query(parameters: dict[str, Any]) -> dict[str, Any]:
    """As a query has them: true and false in JSON's words."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in parameters.items()
        if value is not None
    }
