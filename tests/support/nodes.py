"""A Ray cluster of several nodes and an S3 server, each in a process of its own, for tests that kill them."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import pytest
import s3fs

from diffuir_core import UserError

from .paths import ROOT

sys.path.insert(0, str(ROOT / "cluster"))

from local import CPUS_PER_NODE, PREFERRED_PORTS, Cluster, make_bucket
from services import is_alive, start, stop

BUCKET = "s3://diffuir"
STORE = os.environ.get("DIFFUIR_STORE", "moto")
"""S3 server to use: moto, or ceph where it is installed."""
SECONDS_TO_COME = 120
"""Longest wait for the process that is to be killed, seconds."""
MISSED_SOON = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""Settings of Ray that notice a dead node after some seconds instead of half a minute."""


class Nodes:
    """A head, worker nodes with logical CPUs, and an S3 server."""

    cpus = CPUS_PER_NODE
    """Logical CPUs of each worker node."""

    def __init__(self, folder: Path, count: int, environment: Mapping[str, str]) -> None:
        self.of_nodes: dict[str, str] = {}
        """Further environment variables of Ray's nodes, and so of everything that they run."""
        self.scratch = folder / "scratch"
        """Folder for temporary files of their processes."""
        self.scratch.mkdir()
        self.records: dict[str, dict[str, Any]] = {}
        self.killed: set[str] = set()
        """Nodes that were killed and not started again."""
        self.cluster = Cluster(folder)
        # Any free ports: the preferred ones may be taken by another cluster meanwhile.
        self.cluster.state["ports"] = {name: 0 for name in PREFERRED_PORTS if name != "monitor"}
        self.cluster.choose(count, STORE)
        # Environment that a process needs to use them.
        self.environment = {**self.cluster.environment(), **environment, "TMPDIR": str(self.scratch)}

    def up(self) -> None:
        """Start the services that do not run."""
        for node in self.killed:  # its main process may not have noticed yet that the raylet is gone
            stop(self.records[node])
        self.killed.clear()
        services = [service for service in self.cluster.services() if service.name != "mlflow"]
        for service in services:
            service.environment.update(MISSED_SOON, TMPDIR=str(self.scratch))
            if service.name.startswith("ray"):
                service.environment.update(self.of_nodes)
        try:
            start(services, self.records, self.cluster.logs, lambda: None)
        except UserError:  # Ray's own limit of 30 s, exceeded on a busy machine
            start(services, self.records, self.cluster.logs, lambda: None)
        make_bucket(self.environment)

    def down(self) -> None:
        stop(*self.records.values())
        shutil.rmtree(self.cluster.state["ray_folder"], ignore_errors=True)

    def processes(self, kind: str) -> dict[str, list[psutil.Process]]:
        """Node -> its processes with `kind` in their command line, for nodes that have any."""
        found = {name: named(kind, self._members(name)) for name in self._workers()}
        return {name: processes for name, processes in found.items() if processes}

    def kill_a_process(self, kind: str, rng: random.Random) -> None:
        rng.choice(list(chain.from_iterable(self._some(kind).values()))).kill()

    def kill_a_node(self, kind: str, rng: random.Random) -> None:
        """Kill the raylet of a node that has such a process; the node's other processes have to notice."""
        node = rng.choice(sorted(self._some(kind)))
        (raylet,) = [p for p in self._members(node) if p.name() == "raylet"]
        raylet.kill()
        self.killed.add(node)

    def _some(self, kind: str) -> dict[str, list[psutil.Process]]:
        """`processes`, once there are any: they may be starting or being replaced."""
        deadline = time.monotonic() + SECONDS_TO_COME
        while not (found := self.processes(kind)):
            assert time.monotonic() < deadline, f"no {kind} after {SECONDS_TO_COME} s"
            time.sleep(0.1)
        return found

    def _workers(self) -> list[str]:
        return [
            name
            for name, r in self.records.items()
            if name.startswith("ray-worker") and is_alive(r) and name not in self.killed
        ]

    def _members(self, node: str) -> list[psutil.Process]:
        return psutil.Process(self.records[node]["pid"]).children(recursive=True)


def named(text: str, processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if text in " ".join(process.cmdline()):
                found.append(process)
    return found


@contextmanager
def running(
    folder: Path,
    count: int,
    environment: Mapping[str, str],
    through: Callable[[str], AbstractContextManager[str]] = nullcontext,
) -> Iterator[Nodes]:
    """Running nodes, with this process's environment set to their store.

    through: starts a proxy between the nodes and the store: takes the store's URL and gives the URL for the nodes.
    """
    nodes = Nodes(folder, count, environment)
    store = nodes.cluster.environment()["AWS_ENDPOINT_URL"]
    with through(store) as nodes.of_nodes["AWS_ENDPOINT_URL"], pytest.MonkeyPatch.context() as patch:
        for name, value in nodes.cluster.environment().items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            nodes.up()
            yield nodes
        finally:
            nodes.down()
            s3fs.S3FileSystem.clear_instance_cache()
