"""The lock of a folder: one job holds it, it expires when its holder is dead, and a job that lost it notices."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from diffuir_core import UserError
from diffuir_platform.storage import files as storage
from diffuir_platform.storage import lock as module
from diffuir_platform.storage.lock import Lock

DOING = ("restores into OUT", "choose another OUT")
ELSEWHERE = {"id": "another", "host": "elsewhere", "pid": 12, "created": 1.0, "time": 1.0}
TAKER = """
import sys
from diffuir_core import UserError
from diffuir_platform.storage.lock import Lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lock(sys.argv[1], "restores into OUT", "choose another OUT"):
        print("held", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""
"""A process that takes the lock at the first line on stdin, and releases it at the second."""


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of a local disk, or of S3."""
    if request.param == "local":
        return str(tmp_path / "_diffuir")
    return request.getfixturevalue("s3").uri + "/out/_diffuir"


@contextmanager
def takers(folder: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ready to take the lock."""
    command = [sys.executable, "-c", TAKER, folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * count
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def go_on(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def write_lock(folder: str, **holder: Any) -> None:
    """Write the lock as another job would."""
    storage.write_bytes(storage.join(folder, module.FILE), json.dumps(ELSEWHERE | holder).encode())


def holder(folder: str) -> dict[str, Any]:
    return json.loads(storage.read_bytes(storage.join(folder, module.FILE)))


def is_free(folder: str) -> bool:
    return not storage.exists(storage.join(folder, module.FILE))


def refusal(folder: str) -> str:
    """The error of a job that cannot have the lock."""
    with pytest.raises(UserError) as raised, Lock(folder, *DOING):
        pass
    return str(raised.value)


def has_lost(lock: Lock) -> bool:
    try:
        lock.check()
    except UserError:
        return True
    return False


def comes_true(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not (is_true := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return is_true


@pytest.fixture
def never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let locks expire later than a test may take."""
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 3600)


def test_a_second_job_is_refused_at_once_and_told_who_holds_it(folder: str, never_silent: None) -> None:
    with Lock(folder, *DOING) as lock:
        began = time.monotonic()
        for _ in range(2):
            assert refusal(folder) == (
                f"another job restores into OUT (process {os.getpid()} on {socket.gethostname()}): "
                "wait until it is done, stop it, or choose another OUT"
            )
        assert time.monotonic() - began < 5
        assert holder(folder)["pid"] == os.getpid()
        lock.check()
    assert is_free(folder)


def test_a_job_whose_lock_is_written_without_an_answer_has_it(
    folder: str, monkeypatch: pytest.MonkeyPatch, never_silent: None
) -> None:
    """A store that does not answer is asked again, and then refuses what it has taken already."""
    plain = storage.write_new
    monkeypatch.setattr(storage, "write_new", lambda uri, data: plain(uri, data) and plain(uri, data))
    with Lock(folder, *DOING) as lock:
        lock.check()
        assert holder(folder)["pid"] == os.getpid()
    assert is_free(folder)


def test_it_is_free_after_a_job_that_failed(folder: str) -> None:
    with pytest.raises(ZeroDivisionError), Lock(folder, *DOING):
        raise ZeroDivisionError
    assert is_free(folder)


def test_the_job_of_a_living_process_is_not_disturbed(folder: str, never_silent: None) -> None:
    with takers(folder, 1) as (process,):
        go_on(process)
        assert process.stdout.readline() == "held\n"
        assert f"(process {process.pid} on {socket.gethostname()})" in refusal(folder)
        go_on(process)
        assert process.wait(60) == 0
    assert is_free(folder)


@pytest.mark.parametrize("is_reaped", [True, False])
def test_the_lock_of_a_killed_process_is_taken_at_once(
    folder: str, never_silent: None, is_reaped: bool
) -> None:
    with takers(folder, 1) as (process,):
        go_on(process)
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if is_reaped else os.WNOWAIT))
        assert holder(folder)["pid"] == process.pid
        with Lock(folder, *DOING):
            assert holder(folder)["pid"] == os.getpid()
    assert is_free(folder)


def test_the_lock_of_a_process_whose_number_another_has_now_is_taken_at_once(
    folder: str, never_silent: None
) -> None:
    write_lock(folder, machine=module.machine(), pid=os.getpid(), created=1.0)
    with Lock(folder, *DOING):
        assert holder(folder)["id"] != ELSEWHERE["id"]


def test_the_lock_of_another_container_with_the_same_host_name_is_not_taken_by_its_process_number(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    other = {"host": socket.gethostname(), "machine": "another/4026531836", "pid": 2**22 - 1}

    def beat() -> None:
        while not ended.wait(0.1):
            write_lock(folder, time=time.time(), **other)

    write_lock(folder, **other)
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert f"another job restores into OUT (process {2**22 - 1} on" in refusal(folder)
    finally:
        ended.set()
        beating.join()


def test_a_silent_lock_of_another_machine_is_taken_after_a_while(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 1.0)
    write_lock(folder)
    began = time.monotonic()
    with Lock(folder, *DOING):
        assert time.monotonic() - began >= 1.0
        assert holder(folder)["host"] == socket.gethostname()


def test_a_lock_of_another_machine_that_beats_is_left_to_it(folder: str, never_silent: None) -> None:
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.1):
            write_lock(folder, time=time.time())

    write_lock(folder)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert "another job restores into OUT (process 12 on elsewhere)" in refusal(folder)
    finally:
        ended.set()
        thread.join()
    assert holder(folder)["id"] == ELSEWHERE["id"]


def test_a_lock_that_goes_while_one_waits_for_it_is_taken(folder: str, never_silent: None) -> None:
    write_lock(folder)
    timer = threading.Timer(0.3, lambda: storage.remove_file(storage.join(folder, module.FILE)))
    timer.start()
    with Lock(folder, *DOING):
        timer.join()
        assert holder(folder)["pid"] == os.getpid()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}"])
def test_a_lock_that_says_nothing_is_taken(folder: str, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(module, "EXPIRY_SECONDS", 0.5)
    storage.write_bytes(storage.join(folder, module.FILE), data)
    with Lock(folder, *DOING):
        assert holder(folder)["pid"] == os.getpid()


def test_a_lock_that_is_being_written_is_left_to_its_holder(folder: str, never_silent: None) -> None:
    """On a disk without links it is empty for a moment."""
    storage.write_bytes(storage.join(folder, module.FILE), b"")
    timer = threading.Timer(0.3, write_lock, [folder])
    timer.start()
    assert "another job restores into OUT (process 12 on elsewhere)" in refusal(folder)
    timer.join()


def test_a_holder_beats(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)
    with Lock(folder, *DOING):
        first = holder(folder)
        assert comes_true(lambda: holder(folder)["time"] > first["time"] + 0.3)
        assert {**holder(folder), "time": 0} == {**first, "time": 0}
    time.sleep(0.3)
    assert is_free(folder)


def test_a_job_whose_lock_was_taken_stops_and_leaves_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.1)

    with Lock(folder, *DOING) as lock:
        assert comes_true(lambda: write_lock(folder) or has_lost(lock))
        with pytest.raises(UserError) as raised:
            lock.check()
    assert str(raised.value) == (
        "another job (process 12 on elsewhere) took the lock after ours expired: stopped"
    )
    assert holder(folder) == ELSEWHERE


def test_a_job_that_ends_before_it_notices_leaves_the_lock_to_its_taker(folder: str) -> None:
    with Lock(folder, *DOING):
        write_lock(folder)
    assert holder(folder) == ELSEWHERE


def test_of_processes_that_start_at_once_one_gets_it(folder: str) -> None:
    with takers(folder, 3) as processes:
        go_on(*processes)
        said = sorted(process.stdout.readline() for process in processes)
        assert [text.partition(" (")[0] for text in said] == ["another job restores into OUT"] * 2 + [
            "held\n"
        ]
        assert f"process {holder(folder)['pid']} on" in said[0]


def another_in(action: str, monkeypatch: pytest.MonkeyPatch, folder: str) -> Lock:
    """A lock that another job takes before the next `action` of the store is done."""
    another, plain = Lock(folder, *DOING), getattr(storage, action)

    def overtaken(uri: str) -> object:
        monkeypatch.setattr(storage, action, plain)
        if action == "remove_file":
            another.__enter__()
            return plain(uri)
        found = plain(uri)
        another.__enter__()
        return found

    monkeypatch.setattr(storage, action, overtaken)
    return another


def test_of_two_that_find_a_dead_lock_one_gets_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lock(folder, machine=module.machine(), pid=os.getpid(), created=1.0)
    first = another_in("read_bytes", monkeypatch, folder)
    try:
        assert f"process {os.getpid()} on" in refusal(folder)
        first.check()
    finally:
        first.__exit__()


def test_of_two_that_take_a_dead_lock_all_the_same_one_notices(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1.0)
    write_lock(folder, machine=module.machine(), pid=os.getpid(), created=1.0)
    first = another_in("remove_file", monkeypatch, folder)
    try:
        with Lock(folder, *DOING) as second:
            assert comes_true(lambda: has_lost(first) or has_lost(second))
            time.sleep(1.5)
            assert has_lost(first) != has_lost(second)
    finally:
        first.__exit__()
    assert is_free(folder)
