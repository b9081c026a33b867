"""A cluster on this machine, for trials and tests: a Ray head with workers, an object store and MLflow.

All of it listens on the loopback only. Every process that is started is recorded in the folder, and only those are
ever ended.
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
from services import Service, is_alive, start, stop

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
"""Port of each server; another one is chosen where it is not free."""

OBJECT_STORE_BYTES = 256 * 2**20
"""Size of each Ray node's object store, bytes."""

CPUS_PER_NODE = max(4, os.cpu_count() or 1)
"""CPUs that each Ray node says it has: at least 4, as with fewer all may be taken by work that waits for other
work."""


class Cluster:
    """The cluster that is recorded in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._file = self.folder / "cluster.json"
        self.state: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}

    @property
    def records(self) -> dict[str, Any]:
        """Name of each service -> its record, in the order of their starts."""
        records: dict[str, Any] = self.state.setdefault("parts", {})
        return records

    def write(self) -> None:
        """Write the state to the folder, readable by its owner only, as it holds the store's secret."""
        with replacing(self._file) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps(self.state, indent=1))

    def choose(self, workers: int, store: str) -> None:
        """Choose store, ports and keys for a start, and keep those of the last start wherever that is possible."""
        state = self.state
        running = any(is_alive(record) for record in self.records.values())
        known = state.get("store")
        if store != "any" and known not in (None, store):
            raise UserError(
                f"{self.folder} holds a cluster with {known}: choose another --folder, or leave out --store"
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
        # Ray's sockets need a short path, however long the folder's own is.
        if not Path(state.get("ray_folder", "/nowhere")).is_dir():
            state["ray_folder"] = tempfile.mkdtemp(prefix="diffuir-ray-", dir="/tmp")
        self.write()

    def environment(self) -> dict[str, str]:
        """Return the environment with which a shell, and Ray's jobs, reach the cluster."""
        state, ports = self.state, self.state["ports"]
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['store']}",
            "AWS_ACCESS_KEY_ID": state["key"],
            "AWS_SECRET_ACCESS_KEY": state["secret"],
            "AWS_DEFAULT_REGION": REGION,
            # Ceph does not know the newer checksums that pyarrow's multipart uploads would carry.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
            "RAY_ADDRESS": f"127.0.0.1:{ports['ray']}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard']}",
            "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
            # Keeps Ray from replacing 127.0.0.1 with another address of the machine; see node.py.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def services(self) -> list[Service]:
        """Return all services of the cluster, in the order in which they are listed."""
        return [*self._store(), self._mlflow(), *self._ray()]

    def _store(self) -> list[Service]:
        port = self.state["ports"]["store"]
        if self.state["store"] == "ceph":
            ceph = Ceph(self.folder / "ceph", self.state["ports"]["monitor"])
            return ceph.services(
                port, lambda: is_responding(port, "/"), self.state["key"], self.state["secret"]
            )
        command = (str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port))
        return [
            Service(
                name="moto",
                command=command,
                environment=_clean_environment(),
                ready=lambda: is_responding(port, "/moto-api/"),
            )
        ]

    def _mlflow(self) -> Service:
        port, folder = self.state["ports"]["mlflow"], self.folder / "mlflow"
        return Service(
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
            environment=_clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
            ready=lambda: is_responding(port, "/health"),
        )

    def _ray(self) -> list[Service]:
        ports = self.state["ports"]
        head = (
            *("--head", "--port", str(ports["ray"]), "--num-cpus", "0", "--include-dashboard", "true"),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(ports["dashboard"])),
            *("--ray-client-server-port", str(ports["ray_client"])),
        )
        worker = ("--address", f"127.0.0.1:{ports['ray']}", "--num-cpus", str(CPUS_PER_NODE))
        names = [f"ray-worker-{number}" for number in range(1, self.state["workers"] + 1)]
        return [
            self._node("ray-head", head, lambda: is_responding(ports["dashboard"], "/api/version")),
            *(self._node(name, worker, needs=("ray-head",)) for name in names),
        ]

    def _node(
        self,
        name: str,
        options: tuple[str, ...],
        responds: Callable[[], bool] = lambda: True,
        needs: tuple[str, ...] = (),
    ) -> Service:
        environment = _clean_environment() | self.environment()
        # These lead clients to the cluster; a node has its place from its options.
        for name_of_address in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            del environment[name_of_address]
        # So that the `python` of a job is the one with the packages.
        environment["PATH"] = f"{BIN}{os.pathsep}{environment.get('PATH', '')}"
        # A folder for each node, as if it were a machine: nodes that share one unpack a job's code again and again
        # into the folder that the job runs in.
        folder = Path(self.state["ray_folder"]) / name.removeprefix("ray-")
        log = self.logs / f"{name}.log"
        return Service(
            name=name,
            command=(
                *(sys.executable, str(Path(__file__).with_name("node.py")), *options, "--block"),
                *("--node-ip-address", "127.0.0.1", "--temp-dir", str(folder), "--disable-usage-stats"),
                *("--object-store-memory", str(OBJECT_STORE_BYTES), "--dashboard-agent-listen-port", "0"),
                # Ray's default range of ports would be the same for every node.
                *("--min-worker-port", "0", "--max-worker-port", "0"),
            ),
            environment=environment,
            ready=lambda: responds() and "Ray runtime started" in log.read_text(errors="replace"),
            needs=needs,
            # Ray itself gives up after 30 s, which may be too short on a busy machine.
            attempts=2,
        )

    @property
    def logs(self) -> Path:
        """Folder of the services' logs."""
        return self.folder / "log"


def _clean_environment() -> dict[str, str]:
    """Return this process's environment without the settings of another cluster, and with telemetry off."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("RAY_AUTH_") or not name.startswith(("RAY_", "AWS_", "MLFLOW_"))
    }
    return own | {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port(preferred: int) -> int:
    """Return `preferred` where it is free, else another port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError("no port is free on 127.0.0.1: end some of the programs that listen there")


def is_responding(port: int, path: str) -> bool:
    """Whether a server on the loopback responds with anything but a server error; a refusal counts too."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def make_bucket(environment: dict[str, str]) -> None:
    """Make the bucket that the examples use, where it is missing."""
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
    """Start the services that are not running, and print what `env` prints; returns the exit code."""
    cluster.choose(workers, store)
    services = cluster.services()
    for name in set(cluster.records) - {service.name for service in services}:
        stop(cluster.records.pop(name))
    for name, record in cluster.records.items():
        if not is_alive(record):
            print(f"{name} had died, see {cluster.logs / name}.log: restarting it", file=sys.stderr)
    start(services, cluster.records, cluster.logs, cluster.write)
    make_bucket(cluster.environment())
    if cluster.state["store"] == "moto":
        print(
            "the store is moto, which keeps objects in memory until `down` and checks no credentials; "
            "Ceph is used where radosgw, ceph-mon and ceph-osd are installed",
            file=sys.stderr,
        )
    status(cluster, sys.stderr)
    return env(cluster)


def env(cluster: Cluster) -> int:
    """Print the environment that leads a shell to the cluster; returns the exit code."""
    if not cluster.records:
        raise UserError(f"no cluster is running in {cluster.folder}: start one with `cluster/local.sh up`")
    for name, value in cluster.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def status(cluster: Cluster, out: Any = None) -> int:
    """Print which services run and which have died; returns the exit code, 1 where any has."""
    if not cluster.records:
        print(f"no cluster is running in {cluster.folder}", file=out)
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
    """End all services, and keep what the store and MLflow hold; returns the exit code."""
    stop(*cluster.records.values())
    if "ports" in cluster.state:
        shutil.rmtree(cluster.state.pop("ray_folder", "/nowhere"), ignore_errors=True)
        cluster.records.clear()
        cluster.write()
    return 0


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from starting or ending the cluster of this folder inside the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster/local.sh", description=__doc__)
    parser.add_argument("command", choices=("up", "env", "status", "down"))
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(".cluster"),
        help="folder of the cluster's records, logs and data (.cluster)",
    )
    parser.add_argument("--workers", type=int, default=2, help="number of Ray nodes beside the head (2)")
    parser.add_argument(
        "--store",
        choices=("any", "ceph", "moto"),
        default="any",
        help="object store; any: Ceph where it is installed, else moto (any)",
    )
    options = parser.parse_args()
    try:
        with _locked(options.folder):
            cluster = Cluster(options.folder)
            if options.command == "up":
                return up(cluster, options.workers, options.store)
            return {"env": env, "status": status, "down": down}[options.command](cluster)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
