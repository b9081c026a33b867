"""Prometheus metrics of the gateways, exported by Ray on each node; all names get the prefix ray_.

diffuir_serve_requests{status}          responses
diffuir_serve_refused{why}              503s: "open" requests, "memory", "wait", Serve's own "queue", or "jobs"
diffuir_serve_errors{kind}              responses that are problems, by the last word of their type
diffuir_serve_seconds{stage}            histogram: "upload", "decode", "queue", "restore", "hop", "encode", "whole"
diffuir_serve_pixels                    pixels restored
diffuir_serve_open                      open requests
diffuir_serve_queued                    photos that a model works on or that wait for one
diffuir_serve_wait_seconds              expected wait for a model of a photo that came now
diffuir_serve_batch_size                histogram of photos per batch, from the model replicas

What `transport/proxy_middleware.py` refuses never reaches a gateway; Serve counts it in its own
serve_num_http_error_requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve import metrics
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import KIND_HEADER

BOUNDARIES = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
"""Upper bounds of the histogram's buckets, seconds."""


class Metrics:
    """The metrics of one gateway."""

    def __init__(self) -> None:
        self._requests = metrics.Counter("diffuir_serve_requests", "Responses.", ("status",))
        self._refused = metrics.Counter("diffuir_serve_refused", "Requests refused at a limit.", ("why",))
        self._errors = metrics.Counter("diffuir_serve_errors", "Responses that are problems.", ("kind",))
        self._seconds = metrics.Histogram(
            "diffuir_serve_seconds", "Seconds per stage.", BOUNDARIES, ("stage",)
        )
        self._pixels = metrics.Counter("diffuir_serve_pixels", "Pixels restored.")
        self._open = metrics.Gauge("diffuir_serve_open", "Open requests.")
        self._queued = metrics.Gauge("diffuir_serve_queued", "Photos in a model or waiting for one.")
        self._wait = metrics.Gauge("diffuir_serve_wait_seconds", "Expected wait of a new photo, seconds.")

    def count_responses(self, app: ASGIApp) -> ASGIApp:
        """`app`, with its responses counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._count(message["status"], Headers(raw=message["headers"]).get(KIND_HEADER))
                await send(message)

            await app(scope, receive, send_counted)

        return counted

    def _count(self, status: int, kind: str | None) -> None:
        self._requests.inc(1, {"status": str(status)})
        if kind is None:
            return
        self._errors.inc(1, {"kind": kind})
        if kind.startswith("busy-"):
            self._refused.inc(1, {"why": kind.removeprefix("busy-")})

    def count_restore(self, seconds: Mapping[str, float], pixels: int) -> None:
        """Count one restored photo, with the seconds of each stage."""
        self._pixels.inc(pixels)
        for stage, took in seconds.items():
            self._seconds.observe(took, {"stage": stage})

    def set_load(self, open_requests: int, queued: int, wait: float) -> None:
        """Set the gauges: open requests, queued photos, and the expected wait in seconds."""
        self._open.set(open_requests)
        self._queued.set(queued)
        self._wait.set(wait)
