"""An endpoint in a process of its own, with a model that takes a fixed time.

python serving.py SETTINGS(JSON) COST BATCH

A line `update JSON` on stdin deploys with those settings instead, `metrics` prints the port of the node's metrics.
A reply is a line on stdout that begins with `answer: `.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from diffuir_core.restorer import Restoration

POISON = 251
"""Red value of the first pixel of a photo that kills the process restoring it."""
ANSWER = "answer: "


@dataclass(frozen=True)
class Stub:
    """A restorer that takes `cost` seconds for up to `batch` photos and makes them darker by one."""

    cost: float
    batch: int
    precision: str = "float32"

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        time.sleep(self.cost)
        if any(image[0, 0, 0] == POISON for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Restoration(np.maximum(image, 1) - 1, None) for image in images]

    def batch_size(self, height: int, width: int) -> int:
        return self.batch

    def with_settings(self, **_: Any) -> Stub:
        return self


@dataclass(frozen=True)
class MakesStub:
    cost: float
    batch: int

    def __call__(self, settings: Any, weights: Path | None, steps: int) -> Stub:
        return Stub(self.cost, self.batch)


class Endpoint:
    """A running `python serving.py` or `diffuir serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        # Ray writes to stdout too.
        return (
            next(said for said in self.process.stdout if said.startswith(ANSWER)).removeprefix(ANSWER).strip()
        )

    def restore(self, data: bytes, **parameters: Any) -> requests.Response:
        return requests.post(f"{self.url}/v1/restore", params=parameters, data=data, timeout=120)

    def models_running(self) -> int:
        return requests.get(f"{self.url}/readyz", timeout=30).json().get("models", 0)

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes whose title, which Ray sets, holds `name`."""
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if name in " ".join(_command(child))
        ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextmanager
def started(command: Sequence[str], port: int) -> Iterator[Endpoint]:
    """A command that prints a line once it is ready; ended with SIGINT, after which it has to exit by itself."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "ready" in line, f"the endpoint did not start: {line}"
            yield Endpoint(process, url)
            assert process.poll() is None, "the endpoint ended by itself"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextmanager
def stub_endpoint(cost: float, batch: int = 1, **settings: Any) -> Iterator[Endpoint]:
    from support.ports import free_port  # not there where this file is the program

    port = free_port()
    command = [__file__, json.dumps({"port": port, **settings}), str(cost), str(batch)]
    with started(command, port) as endpoint:
        yield endpoint


def main() -> None:
    from ray import cloudpickle, serve

    from diffuir_platform.runtime import ray_session
    from diffuir_platform.serve import ServeSettings
    from diffuir_platform.serve.app import NAME, application
    from diffuir_platform.serve.commands import serving

    given, cost, batch = sys.argv[1:]
    cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    settings = ServeSettings(**json.loads(given))
    make = MakesStub(float(cost), int(batch))
    with serving(settings, make) as url:
        print(f"{url} is ready", flush=True)
        for line in sys.stdin:
            command, _, text = line.strip().partition(" ")
            if command == "update":
                settings = settings.model_copy(update=json.loads(text))
                with ray_session() as resources:
                    serve.run(application(settings, resources, make), name=NAME, route_prefix="/")
                print(f"{ANSWER}updated", flush=True)
            elif command == "metrics":
                import ray

                (node,) = ray.nodes()
                print(f"{ANSWER}{node['MetricsExportPort']}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
