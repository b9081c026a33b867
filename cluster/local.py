"""A cluster on this machine, for trying things out: a Ray head with workers, an object store and MLflow.

Everything listens on the loopback alone. What is started is written down in the folder, and nothing else is ended.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ceph import Ceph, is_installed
from parts import Part, is_alive, start, stop

from diffuir_core import UserError
from diffuir_core.files import replacing

BIN = Path(sys.executable).parent
BUCKET = "diffuir"
REGION = "us-east-1"

PREFERRED_PORTS = {
    "ray": 6379,
    "dashboard": 8265,
    "ray_client": 10001,
    "store": 7480,
    "monitor": 3300,
    "mlflow": 5000,
}
"""Another is taken where one of them is not free."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Of each Ray node."""

CPUS_OF_A_NODE = max(4, os.cpu_count() or 1)
"""Logical ones: where work waits for a CPU that is counted as taken, nothing moves."""


class Cluster:
    """What is written down in `folder` about the cluster, and what can be done with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "cluster.json"
        self.state: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    @property
    def records(self) -> dict[str, Any]:
        """Part -> what is written down of it, in the order of their start."""
        records: dict[str, Any] = self.state.setdefault("parts", {})
        return records

    def write(self) -> None:
        """Write the state down; it holds the store's secret, so for nobody else to read."""
        with replacing(self._file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(self.state, indent=1))

    def choose(self, workers: int, store: str) -> None:
        """Settle what a start needs to know, as it was before wherever that is still possible."""
        state = self.state
        running = any(is_alive(record) for record in self.records.values())
        known = state.get("store")
        if store != "any" and known not in (None, store):
            raise UserError(
                f"{self.folder} holds a cluster with {known}: take another --folder, or leave out --store"
            )
        state["store"] = known or (store if store != "any" else "ceph" if is_installed() else "moto")
        if state["store"] == "ceph" and not is_installed():
            raise UserError(
                "Ceph is not installed: apt-get install radosgw ceph-mon ceph-osd, or --store moto"
            )
        state["workers"] = workers
        if not running:
            kept = state.get("ports", {})
            state["ports"] = {
                name: kept[name]
                if name == "monitor" and name in kept
                else free_port(kept.get(name, preferred))
                for name, preferred in PREFERRED_PORTS.items()
            }
        state.setdefault("key", f"DIFFUIR{secrets.token_hex(6).upper()}")
        state.setdefault("secret", secrets.token_urlsafe(30))
        # Ray's sockets need a short path, whatever the folder's is.
        if not Path(state.get("ray_folder", "/nowhere")).is_dir():
            state["ray_folder"] = tempfile.mkdtemp(prefix="diffuir-ray-", dir="/tmp")
        self.write()

    def environment(self) -> dict[str, str]:
        """What leads a shell, and Ray's jobs, to the cluster."""
        state, ports = self.state, self.state["ports"]
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['store']}",
            "AWS_ACCESS_KEY_ID": state["key"],
            "AWS_SECRET_ACCESS_KEY": state["secret"],
            "AWS_DEFAULT_REGION": REGION,
            # Ceph does not know the newer ones that pyarrow's uploads in parts would carry.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
            "RAY_ADDRESS": f"127.0.0.1:{ports['ray']}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard']}",
            "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
            # For Ray not to look for 127.0.0.1 on the machine's other addresses; see node.py.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def parts(self) -> list[Part]:
        """Everything that belongs to it, in the order in which it is listed."""
        return [*self._store(), self._mlflow(), *self._ray()]

    def _store(self) -> list[Part]:
        port = self.state["ports"]["store"]
        if self.state["store"] == "ceph":
            ceph = Ceph(self.folder / "ceph", self.state["ports"]["monitor"])
            return ceph.parts(port, lambda: answers(port, "/"), self.state["key"], self.state["secret"])
        command = (str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port))
        return [
            Part(
                name="moto", command=command, environment=_plain(), ready=lambda: answers(port, "/moto-api/")
            )
        ]

    def _mlflow(self) -> Part:
        port, folder = self.state["ports"]["mlflow"], self.folder / "mlflow"
        return Part(
            name="mlflow",
            command=(
                *(
                    str(BIN / "mlflow"),
                    "server",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(port),
                    "--workers",
                    "1",
                ),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", (folder / "artifacts").as_uri()),
            ),
            environment=_plain() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
            ready=lambda: answers(port, "/health"),
        )

    def _ray(self) -> list[Part]:
        ports = self.state["ports"]
        head = (
            *("--head", "--port", str(ports["ray"]), "--num-cpus", "0", "--include-dashboard", "true"),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports["dashboard"])),
            *("--ray-client-server-port", str(ports["ray_client"])),
        )
        worker = ("--address", f"127.0.0.1:{ports['ray']}", "--num-cpus", str(CPUS_OF_A_NODE))
        names = [f"ray-worker-{number}" for number in range(1, self.state["workers"] + 1)]
        return [
            self._node("ray-head", head, lambda: answers(ports["dashboard"], "/api/version")),
            *(self._node(name, worker, needs=("ray-head",)) for name in names),
        ]

    def _node(
        self,
        name: str,
        options: tuple[str, ...],
        answers: Callable[[], bool] = lambda: True,
        needs: tuple[str, ...] = (),
    ) -> Part:
        environment = _plain() | self.environment()
        # These are for who comes to it; a node is told where it belongs.
        for told in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            del environment[told]
        # A job's `python` is then the one with the packages.
        environment["PATH"] = f"{BIN}{os.pathsep}{environment.get('PATH', '')}"
        # A folder of its own, as on a machine of its own: nodes that share one unpack a job's code over and over
        # into the folder that it is running in.
        folder = Path(self.state["ray_folder"]) / name.removeprefix("ray-")
        log = self.logs / f"{name}.log"
        return Part(
            name=name,
            command=(
                *(sys.executable, str(Path(__file__).with_name("node.py")), *options, "--block"),
                *("--node-ip-address", "127.0.0.1", "--temp-dir", str(folder), "--disable-usage-stats"),
                *("--object-store-memory", str(OBJECT_STORE_BYTES), "--dashboard-agent-listen-port", "0"),
                # The fixed range of the default would be every node's.
                *("--min-worker-port", "0", "--max-worker-port", "0"),
            ),
            environment=environment,
            ready=lambda: answers() and "Ray runtime started" in log.read_text(errors="replace"),
            needs=needs,
            # It gives up after 30 s of its own, which a busy machine may need.
            attempts=2,
        )

    @property
    def logs(self) -> Path:
        """The folder of what the parts print."""
        return self.folder / "log"


def _plain() -> dict[str, str]:
    """This process's environment, without what it says of another cluster, and without telemetry."""
    mine = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RAY_AUTH_") or not name.startswith(("RAY_", "AWS_", "MLFLOW_"))
    }
    return mine | {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port(preferred: int) -> int:
    """`preferred` where nobody listens there, else another."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError("no port is free on 127.0.0.1: end what listens there")


def answers(port: int, path: str) -> bool:
    """Whether a server on the loopback answers, if only that it refuses."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def make_bucket(environment: dict[str, str]) -> None:
    """The bucket that examples use, where it is missing."""
    from botocore.exceptions import ClientError
    from botocore.session import get_session

    client = get_session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.head_bucket(Bucket=BUCKET)
    except ClientError:
        client.create_bucket(Bucket=BUCKET)


def up(cluster: Cluster, workers: int, store: str) -> int:
    cluster.choose(workers, store)
    parts = cluster.parts()
    for name in set(cluster.records) - {part.name for part in parts}:
        stop(cluster.records.pop(name))
    for name, record in cluster.records.items():
        if not is_alive(record):
            print(f"{name} had died, see {cluster.logs / name}.log: starting it again", file=sys.stderr)
    start(parts, cluster.records, cluster.logs, cluster.write)
    make_bucket(cluster.environment())
    if cluster.state["store"] == "moto":
        print(
            "the store is moto: in memory, so gone after `down`, and it lets everybody in; "
            "a real one is taken where radosgw, ceph-mon and ceph-osd are installed",
            file=sys.stderr,
        )
    status(cluster, sys.stderr)
    return env(cluster)


def env(cluster: Cluster) -> int:
    if not cluster.records:
        raise UserError(f"no cluster is up in {cluster.folder}: start one with `cluster/local.sh up`")
    for name, value in cluster.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def status(cluster: Cluster, out: Any = None) -> int:
    if not cluster.records:
        print(f"nothing is up in {cluster.folder}", file=out)
        return 1
    places = {
        "ray-head": f"http://127.0.0.1:{cluster.state['ports']['dashboard']}",
        "mlflow": f"http://127.0.0.1:{cluster.state['ports']['mlflow']}",
        **dict.fromkeys(
            ("moto", "radosgw"), f"http://127.0.0.1:{cluster.state['ports']['store']} bucket {BUCKET}"
        ),
    }
    dead = 0
    for name, record in cluster.records.items():
        if is_alive(record):
            print(f"{name:<13} runs   pid {record['pid']:<8} {places.get(name, '')}".rstrip(), file=out)
        else:
            dead += 1
            print(f"{name:<13} died   see {cluster.logs / name}.log", file=out)
    return 1 if dead else 0


def down(cluster: Cluster) -> int:
    stop(*cluster.records.values())
    if "ports" in cluster.state:
        shutil.rmtree(cluster.state.pop("ray_folder", "/nowhere"), ignore_errors=True)
        cluster.records.clear()
        cluster.write()
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else starts or ends the cluster of that folder meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster/local.sh", description=__doc__)
    parser.add_argument("command", choices=("up", "env", "status", "down"))
    parser.add_argument(
        "--folder", type=Path, default=Path(".cluster"), help="where it is written down (.cluster)"
    )
    parser.add_argument("--workers", type=int, default=2, help="Ray nodes beside the head (2)")
    parser.add_argument(
        "--store", choices=("any", "ceph", "moto"), default="any", help="Ceph where it is installed"
    )
    options = parser.parse_args()
    try:
        with _alone(options.folder):
            cluster = Cluster(options.folder)
            if options.command == "up":
                return up(cluster, options.workers, options.store)
            return {"env": env, "status": status, "down": down}[options.command](cluster)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
