"""A local Ray admits only the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
