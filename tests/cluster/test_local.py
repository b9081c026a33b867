"""`cluster/local.sh` as a user runs it: a Ray head and a worker, an object store and MLflow on free ports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import requests
from botocore.exceptions import ClientError

from support.paths import ROOT

sys.path.insert(0, str(ROOT / "cluster"))

from services import Service, is_alive, start, stop

from diffuir_core import UserError

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


class Local:
    """`cluster/local.sh` with a folder of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, command: str, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [ROOT / "cluster" / "local.sh", command, "--folder", self.folder, *options],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "cluster.json").read_text())

    @property
    def pids(self) -> dict[str, int]:
        return {name: record["pid"] for name, record in self.state["parts"].items()}

    @property
    def environment(self) -> dict[str, str]:
        lines = self("env").stdout.splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    command = Local(tmp_path_factory.mktemp("cluster"))
    try:
        command("up", "--workers", "1")
        yield command
    finally:
        command("down")


def members(local: Local) -> list[psutil.Process]:
    mains = [psutil.Process(pid) for pid in local.pids.values()]
    return [process for main in mains for process in (main, *main.children(recursive=True))]


def s3(environment: dict[str, str], **changes: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_DEFAULT_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=changes.get("secret", environment["AWS_SECRET_ACCESS_KEY"]),
    )


@pytest.mark.slow
def test_every_service_that_was_started_responds(local: Local) -> None:
    environment = local.environment
    store = s3(environment)
    store.put_object(Bucket="diffuir", Key="folder/photo", Body=b"pixels")
    assert store.get_object(Bucket="diffuir", Key="folder/photo")["Body"].read() == b"pixels"
    tracker = environment["MLFLOW_TRACKING_URI"]
    made = requests.post(f"{tracker}/api/2.0/mlflow/experiments/create", json={"name": "new"}, timeout=20)
    assert made.status_code == 200, made.text
    nodes = requests.get(f"{environment['RAY_API_SERVER_ADDRESS']}/api/v0/nodes", timeout=20).json()
    assert [node["state"] for node in nodes["data"]["result"]["result"]] == ["ALIVE", "ALIVE"]
    status = local("status").stdout
    assert status.count(" runs ") == len(local.pids)


@pytest.mark.slow
def test_a_wrong_secret_is_refused(local: Local) -> None:
    if local.state["store"] != "ceph":
        pytest.skip("no radosgw, ceph-mon and ceph-osd here: moto's store lets everybody in")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3(local.environment, secret="of-somebody-else").list_objects_v2(Bucket="diffuir")


@pytest.mark.slow
def test_nothing_listens_beyond_the_loopback(local: Local) -> None:
    listening = [
        connection.laddr.ip
        for process in members(local)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert set(listening) <= LOOPBACK


@pytest.mark.slow
def test_only_its_owner_can_read_the_secret(local: Local) -> None:
    assert (local.folder / "cluster.json").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_up_again_starts_nothing(local: Local) -> None:
    before = local.pids
    assert "export RAY_ADDRESS=" in local("up", "--workers", "1").stdout
    assert local.pids == before


@pytest.mark.slow
def test_a_service_that_has_died_is_named_and_restarted(local: Local) -> None:
    before = local.pids
    for process in (
        psutil.Process(before["mlflow"]),
        *psutil.Process(before["mlflow"]).children(recursive=True),
    ):
        process.kill()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(before["mlflow"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    died = [line for line in local("status", code=1).stdout.splitlines() if " died " in line]
    assert len(died) == 1
    assert died[0].startswith("mlflow ")
    assert "mlflow.log" in died[0]
    assert "mlflow had died" in local("up", "--workers", "1").stderr
    after = local.pids
    assert after.pop("mlflow") != before.pop("mlflow")
    assert after == before


@pytest.mark.slow
def test_down_leaves_no_process_and_no_socket_folder_behind(local: Local) -> None:
    started, ray_folder = members(local), Path(local.state["ray_folder"])
    assert len(started) > len(local.pids)
    assert ray_folder.is_dir()
    local("down")
    assert [process for process in started if process.is_running() and process.status() != "zombie"] == []
    assert not ray_folder.exists()
    assert "no cluster is running" in local("status", code=1).stdout
    assert "cluster/local.sh up" in local("env", code=2).stderr


def sleeper(name: str, **changes: Any) -> Service:
    command = (sys.executable, "-c", "import time; time.sleep(100)")
    return Service(
        name=name, **{"command": command, "environment": dict(os.environ), "ready": lambda: True, **changes}
    )


def test_a_service_that_does_not_start_is_named(tmp_path: Path) -> None:
    records: dict[str, Any] = {}
    services = [sleeper("good"), sleeper("bad", command=("false",), ready=lambda: False, needs=("good",))]
    try:
        with pytest.raises(UserError, match=r"bad ended while it started: see .*bad\.log"):
            start(services, records, tmp_path, lambda: None)
        assert is_alive(records["good"])
        assert not is_alive(records["bad"])
    finally:
        for record in records.values():
            stop(record)
    assert not is_alive(records["good"])


def test_a_service_may_be_given_a_second_attempt(tmp_path: Path) -> None:
    tried, ready = tmp_path / "tried", tmp_path / "ready"
    command = ("sh", "-c", f"[ -e {tried} ] && touch {ready} && exec sleep 100; touch {tried}; exit 1")
    records: dict[str, Any] = {}
    try:
        service = sleeper("late", command=command, ready=ready.exists, attempts=2)
        start([service], records, tmp_path, lambda: None)
        assert is_alive(records["late"])
    finally:
        stop(records.get("late"))


def test_services_that_need_one_that_died_are_restarted_with_it(tmp_path: Path) -> None:
    records: dict[str, Any] = {}
    services = [sleeper("head"), sleeper("worker", needs=("head",)), sleeper("other")]
    try:
        start(services, records, tmp_path, lambda: None)
        before = {name: record["pid"] for name, record in records.items()}
        stop(records["head"])
        start(services, records, tmp_path, lambda: None)
        same = {name for name, record in records.items() if record["pid"] == before[name]}
        assert same == {"other"}
    finally:
        for record in records.values():
            stop(record)


def test_a_process_that_has_the_id_of_an_earlier_service_is_left_alone() -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(100)"], start_new_session=True
    )
    try:
        record = {"pid": stranger.pid, "created": psutil.Process(stranger.pid).create_time() + 1000}
        assert not is_alive(record)
        stop(record)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
