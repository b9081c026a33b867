"""A local Ray admits only the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffuir_platform.runtime import RayDidNotStart, ray_session
from diffuir_platform.runtime.starting import FOLDER_PREFIX

OWN = """
import os, subprocess, sys
import psutil, ray
from diffuir_platform.runtime import ray_session

STRANGER = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1])"
with ray_session(dashboard=True):
    assert ray.get(ray.remote(lambda: 1).remote()) == 1
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                print(connection.laddr.ip)
    address = ray.get_runtime_context().gcs_address
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    for environment in (os.environ, plain):
        client = subprocess.run(
            [sys.executable, "-c", STRANGER, address], env=environment, capture_output=True, text=True, timeout=100
        )
        print("in" if client.returncode == 0 else "out" if "InvalidAuthToken" in client.stderr else client.stderr)
with ray_session():  # a second one in the same process
    print(ray.get(ray.remote(lambda: "again").remote()))
"""


@pytest.mark.slow
def test_it_listens_on_the_loopback_and_lets_nobody_in_without_its_token() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    said = subprocess.run(
        [sys.executable, "-c", OWN],
        env=plain,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    *listening, friend, stranger, again = said.stdout.split()
    assert len(listening) > 5
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert (friend, stranger, again) == ("in", "out", "again")


SHORT = """
import ray
from diffuir_platform.runtime import ray_session
with ray_session():
    print(ray.get(ray.remote(lambda: "ran").remote()))
"""


@pytest.mark.slow
def test_a_temporary_folder_whose_path_is_too_long_for_a_socket_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    before = set(Path("/tmp").glob(f"{FOLDER_PREFIX}*"))
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SHORT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert set(Path("/tmp").glob(f"{FOLDER_PREFIX}*")) == before, "it is not removed"


def test_a_ray_that_does_not_start_is_tried_again_with_more_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []
    limit = "RAY_gcs_server_port_wait_time_s"

    def init(**arguments: object) -> None:
        tries.append(os.environ[limit])
        raise TimeoutError("Timed out after 30 seconds")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(RayDidNotStart, match="busy machine within 120 s"), ray_session():
        pass
    assert tries == ["30", "90"]
