"""An MLflow server that tests can kill and start again."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from diffuir_platform.tracking import (
    Tracker,
)
from support.ports import free_port

Start = Callable[..., Tracker]
"""Type of the fixture `start`: opens a run, or resumes one as a new process would."""


class Server:
    """An MLflow server with its own artifact store, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--workers": "1",
            "--backend-store-uri": f"sqlite:///{self._folder / 'server.db'}",
            "--artifacts-destination": str(self._folder / "files"),
        }
        arguments = [text for option in options.items() for text in option]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--serve-artifacts", *arguments],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, "the server ended at its start"
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None:
            # The whole process group: a child of the server handles the requests.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def asking_for_a_password() -> Iterator[str]:
    """The URI of a server that answers every request with 401."""

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_error(401)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Not into the test's output."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{refusing.server_port}"
        refusing.shutdown()


def curve(tracker: Tracker, name: str) -> list[tuple[int, float]]:
    """Return the points of a curve in MLflow's order."""
    history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id, name)
    return [(point.step, point.value) for point in history]
