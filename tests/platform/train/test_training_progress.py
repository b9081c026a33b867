"""Messages of workers and of Ray Train's controller become lines on the driver's terminal, in order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray as ray_module
from ray.train import RunConfig

from diffuir_core import UserError
from diffuir_platform.storage.lock import Lock
from diffuir_platform.train.progress import (
    Compiling,
    Message,
    Point,
    ProgressChannel,
    Replaced,
    ReportMonitor,
    Resumed,
    printed_progress,
)


def point(step: int) -> Point:
    return Point(step, loss=0.25, images_per_second=10.0, data_wait_share=0.5)


@ray_module.remote(num_cpus=0)
def send(channel: ProgressChannel, *messages: Message) -> int:
    for message in messages:
        channel.send(message)
    return os.getpid()


def printed_by(*messages: Message) -> None:
    """Send messages from another process; the lines are on standard output afterwards."""
    with printed_progress(steps=1000) as channel:
        assert ray_module.get(send.remote(channel, *messages)) != os.getpid()


def test_each_message_is_a_line(ray: object, capsys: pytest.CaptureFixture[str]) -> None:
    printed_by(Resumed(1500), Compiling(), point(2))
    assert capsys.readouterr().out.splitlines() == [
        "going on from step 1,500",
        "the network is compiled: its first steps take minutes",
        "step 2/1,000  loss 0.2500  10.0 images/s  50% waiting for data",
    ]
    printed_by(point(10), point(20))
    assert [line.endswith(" min left") for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_replaced_photos_come_above_their_own_point(ray: object, capsys: pytest.CaptureFixture[str]) -> None:
    """A worker names them at once; the report of the point before may not have been taken yet."""
    printed_by(Replaced(2, ("a: gone",)), Replaced(4, ("b: gone", "c: gone")), point(2), point(5))
    lines = [line.split("  ")[0].rpartition("be used: ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a: gone", "step 2/1,000", "b: gone", "c: gone", "step 5/1,000"]


def test_photos_of_a_worker_that_was_killed_are_named_once(
    ray: object, capsys: pytest.CaptureFixture[str]
) -> None:
    printed_by(Replaced(4, ("a: gone", "b: gone")), Resumed(2), Replaced(3, ("a: gone",)), point(3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "going on from step 2",
        "another image is taken in place of one that can't be used: a: gone",
    ]
    assert len(lines) == 3


def test_a_terminal_that_is_gone_fails_no_worker(ray: object, caplog: pytest.LogCaptureFixture) -> None:
    with printed_progress(steps=1000) as channel:
        ray_module.kill(channel.queue.actor)
        channel.send(Resumed(1))
        ray_module.get(send.remote(channel, point(1)))
    assert "may not show Resumed(step=1)" in caplog.text


def test_a_report_is_checked_before_and_after_its_point_is_sent(
    ray: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {
        "step": 7,
        "loss": 0.25,
        "images_per_second": 10.0,
        "data_wait_share": 0.5,
        "gradient_norm": 1.0,
    }
    context = RunConfig()
    with printed_progress(steps=10) as channel, Lock(str(tmp_path), "trains it", "take another name") as lock:
        monitor = ReportMonitor(channel, lock.claim)
        monitor.after_report(context, [{}, {}], None)
        monitor.after_report(context, [metrics, {}], None)
        with pytest.raises(UserError, match="no finite numbers at step 8"):
            monitor.after_report(context, [{**metrics, "step": 8, "gradient_norm": float("nan")}, {}], None)
        (tmp_path / "lock.json").write_text('{"id": "another", "host": "elsewhere", "pid": 1}')
        with pytest.raises(UserError, match="another job"):
            monitor.after_report(context, [{**metrics, "step": 9}, {}], None)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "step 7/10",
        "step 8/10",
    ]
