"""What Prometheus can read of the gateways, through Ray's own metrics on each node; all begin with ray_.

diffuir_serve_requests{status}          answers
diffuir_serve_refused{why}              503s: "open" requests, "memory", "wait", or Serve's own "queue"
diffuir_serve_errors{kind}              answers that are problems, by the last word of their type
diffuir_serve_seconds{stage}            histogram: "upload", "decode", "queue", "restore", "hop", "encode", "whole"
diffuir_serve_pixels                    restored
diffuir_serve_open                      requests at present
diffuir_serve_queued                    photos that a model has or is to have
diffuir_serve_wait_seconds              that a photo would wait now
diffuir_serve_batch_size                histogram, of the models' processes

What `front.py` refuses never reaches a gateway, and is in Serve's own serve_num_http_error_requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve import metrics
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..problems import KIND_HEADER

BOUNDARIES = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0]
"""Seconds."""


class Metrics:
    """Of one gateway."""

    def __init__(self) -> None:
        self._requests = metrics.Counter("diffuir_serve_requests", "Answers.", ("status",))
        self._refused = metrics.Counter("diffuir_serve_refused", "Refused for want of room.", ("why",))
        self._errors = metrics.Counter("diffuir_serve_errors", "Answers that are problems.", ("kind",))
        self._seconds = metrics.Histogram(
            "diffuir_serve_seconds", "Spent in a stage.", BOUNDARIES, ("stage",)
        )
        self._pixels = metrics.Counter("diffuir_serve_pixels", "Pixels restored.")
        self._open = metrics.Gauge("diffuir_serve_open", "Requests at present.")
        self._queued = metrics.Gauge("diffuir_serve_queued", "Photos that a model has or is to have.")
        self._wait = metrics.Gauge("diffuir_serve_wait_seconds", "That a photo would wait now.")

    def counting(self, app: ASGIApp) -> ASGIApp:
        """`app`, whose answers are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_counted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._answered(message["status"], Headers(raw=message["headers"]).get(KIND_HEADER))
                await send(message)

            await app(scope, receive, send_counted)

        return counted

    def _answered(self, status: int, kind: str | None) -> None:
        self._requests.inc(1, {"status": str(status)})
        if kind is None:
            return
        self._errors.inc(1, {"kind": kind})
        if kind.startswith("busy-"):
            self._refused.inc(1, {"why": kind.removeprefix("busy-")})

    def restored(self, seconds: Mapping[str, float], pixels: int) -> None:
        """One photo, with the seconds of each stage."""
        self._pixels.inc(pixels)
        for stage, took in seconds.items():
            self._seconds.observe(took, {"stage": stage})

    def stands(self, open_requests: int, queued: int, wait: float) -> None:
        """How full it is."""
        self._open.set(open_requests)
        self._queued.set(queued)
        self._wait.set(wait)
