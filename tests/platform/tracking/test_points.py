"""Points reach MLflow once, whatever dies: in SQLite, and in a server that is killed and started again."""

from __future__ import annotations

import base64
import errno
import http.server
import json
import logging
import os
import pickle
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from PIL import Image

from diffuir_core import UserError
from diffuir_platform.tracking import Tracker, deliver, fetch_registered, open_run
from diffuir_platform.tracking import __main__ as command
from diffuir_platform.tracking.spool import Queue, locked_file
from support.mlflow_server import Server, Start, curve

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
LOGGING_PROCESS = """
import sys, time
from pathlib import Path
from diffuir_platform.tracking import Tracker
tracker = Tracker(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
for step in range(100_000):
    tracker.log({"loss": step, "validation": -step} if step % 5 == 0 else {"loss": step}, step)
    print(step, flush=True)
    time.sleep(0.002)
"""


def artifacts(tracker: Tracker, folder: str | None = None) -> list[str]:
    return [a.path for a in MlflowClient(tracker.uri).list_artifacts(tracker.run_id, folder)]


def test_a_restart_from_an_older_step_repeats_no_point(start: Start) -> None:
    first = start()
    for step in range(1, 7):
        first.log({"step": step, "loss": step, "learning_rate": 1.0}, step)
        if step % 3 == 0:
            first.log({"validation": step}, step)
    assert first.flush()
    # As a worker does that dies between the points of a step.
    MlflowClient(first.uri).log_metric(first.run_id, "loss", 7, step=7)

    second = start(first.run_id)
    for step in range(4, 10):
        second.log({"loss": step + 0.5, "learning_rate": 2.0}, step)
        if step % 3 == 0:
            second.log({"validation": step + 0.5}, step)
    second.finish("FINISHED")

    assert curve(first, "loss") == [*((s, s) for s in range(1, 8)), (8, 8.5), (9, 9.5)]
    assert curve(first, "learning_rate") == [*((s, 1.0) for s in range(1, 7)), *((s, 2.0) for s in (7, 8, 9))]
    assert curve(first, "validation") == [(3, 3), (6, 6), (9, 9.5)]
    assert curve(first, "step") == []
    assert second._uploader.deliver() == 0, "the thread may still be delivering"
    assert not second.spool.joinpath(second.run_id).exists(), "nothing is left on the disk"


def test_undelivered_points_on_a_lost_disk_come_from_the_checkpoint(
    start: Start, tmp_path: Path, nobody: str
) -> None:
    run = start()
    lost = Tracker(f"http://{nobody}", run.run_id, tmp_path / "lost")
    for step in range(1, 4):
        lost.log({"loss": step}, step)
    points = json.loads(json.dumps(lost.undelivered()))
    (tmp_path / "lost").rename(tmp_path / "gone")

    run.log_again(points)
    run.log({"loss": 99}, 3)
    run.log_again(points)
    run.finish("FINISHED")
    assert curve(run, "loss") == [(1, 1), (2, 2), (3, 3)]
    assert run.undelivered() == []


def test_the_driver_and_the_worker_log_into_one_run(start: Start) -> None:
    driver = start()
    worker = pickle.loads(pickle.dumps(driver))
    driver.log_params({"a": 1})
    for step in range(100):
        (driver, worker)[step % 2].log({"loss": step}, step)
    assert worker.flush()
    assert driver.flush()
    worker.log({"loss": 100}, 100)
    assert worker.flush()
    driver.log({"loss": -1}, 100)
    driver.finish("FINISHED")
    assert curve(driver, "loss") == [(step, step) for step in range(101)]
    assert MlflowClient(driver.uri).get_run(driver.run_id).info.status == "FINISHED"


def test_a_lost_response_repeats_no_point(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    applied = MlflowClient.log_batch
    losses = iter([False, True, False])

    def lossy(self: MlflowClient, run_id: str, metrics: list[Metric]) -> None:
        # MLflow drops a point that is equal in everything; other stores may not, so no two are equal here.
        stamped = [Metric(m.key, m.value, time.time_ns() // 1000, m.step) for m in metrics]
        applied(self, run_id, metrics=stamped)
        if next(losses, False):
            raise MlflowException("the response is lost")

    tracker = start()
    monkeypatch.setattr(MlflowClient, "log_batch", lossy)
    for step in range(3):
        tracker.log({"loss": step, "learning_rate": 1.0}, step)
        assert tracker.flush()
    monkeypatch.undo()
    tracker.finish("FINISHED")
    assert curve(tracker, "loss") == [(0, 0), (1, 1), (2, 2)]
    assert curve(tracker, "learning_rate") == [(0, 1), (1, 1), (2, 1)]
    assert "(the response is lost): the run goes on" in caplog.text
    assert "is back" in caplog.text


def test_infinite_and_nan_values_are_delivered(start: Start) -> None:
    tracker = start()
    for step, loss in enumerate((1.0, float("nan"), float("inf"), 2.0)):
        tracker.log({"loss": loss}, step)
    tracker.finish("FAILED")
    assert [step for step, _ in curve(tracker, "loss")] == [0, 1, 2, 3]
    assert MlflowClient(tracker.uri).get_run(tracker.run_id).info.status == "FAILED"


def test_a_process_killed_at_any_moment_loses_nothing(start: Start) -> None:
    tracker = start()
    process = subprocess.Popen(
        [sys.executable, "-c", LOGGING_PROCESS, tracker.uri, tracker.run_id, str(tracker.spool)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        deadline = time.monotonic() + 60
        # Once it delivers; it logs faster than that, so it is killed between two points.
        while not curve(tracker, "loss"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        rest = process.stdout.read().split()
        process.wait()
    last = int(rest[-1])
    after = start(tracker.run_id)
    after.log({"loss": -1, "validation": -1}, last - last % 5)
    after.log({"loss": last + 100}, last + 100)
    after.finish("FINISHED")
    losses = curve(tracker, "loss")
    assert losses[:-1] in ([(s, s) for s in range(last + 1)], [(s, s) for s in range(last + 2)])
    assert losses[-1] == (last + 100, last + 100)
    assert curve(tracker, "validation")[: last // 5 + 1] == [(s, -s) for s in range(0, last + 1, 5)]


def test_half_a_line_of_a_killed_process_is_skipped(start: Start) -> None:
    tracker = start()
    Queue(tracker.spool / tracker.run_id, "records")._file.write_bytes(b'{"do": "poi')
    tracker.log({"loss": 1}, 1)
    tracker.finish("FINISHED")
    assert curve(tracker, "loss") == [(1, 1)]


def test_a_queue_that_is_removed_while_a_process_waits_for_its_lock_loses_nothing(tmp_path: Path) -> None:
    queue = Queue(tmp_path, "records")
    with locked_file(tmp_path / "records.jsonl"):
        waiting = threading.Thread(target=queue.append, args=({"do": "point"},))
        waiting.start()
        time.sleep(0.2)
        (tmp_path / "records.jsonl").unlink()
    waiting.join()
    assert list(queue.undelivered()) == [{"do": "point"}]


def test_logging_does_not_wait_for_a_locked_database(start: Start, database: str) -> None:
    tracker = start()
    lock = sqlite3.connect(database.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    for step in range(50):
        tracker.log({"loss": step}, step)
    elapsed = time.monotonic() - began
    time.sleep(0.5)
    lock.execute("ROLLBACK")
    lock.close()
    tracker.finish("FINISHED")
    assert elapsed < 2, f"50 points took {elapsed:.1f} s"
    assert curve(tracker, "loss") == [(step, step) for step in range(50)]


def test_points_do_not_wait_for_an_artifact_store(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start(experiment="blocked")
    (tmp_path / "artifacts").write_text("in the way")
    tracker.log_image(PICTURE, "panels/1.png")
    tracker.log({"loss": 1}, 1)
    tracker.finish("FINISHED", stall_timeout=1)
    assert curve(tracker, "loss") == [(1, 1)]
    assert "1 file are kept in" in caplog.text
    (tmp_path / "artifacts").unlink()
    assert deliver(tmp_path / "spool") == 1
    assert artifacts(tracker, "panels") == ["panels/1.png"]
    assert not (tmp_path / "spool" / tracker.run_id).exists()


def test_a_record_that_mlflow_refuses_is_set_aside_and_blocks_no_other(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start()
    tracker.log({"loss": 1}, 1)
    tracker.log({"loss (total)?": 2}, 2)
    tracker.log({"loss": 3}, 3)
    tracker.finish("FINISHED")
    assert curve(tracker, "loss") == [(1, 1), (3, 3)]
    (refused,) = (tracker.spool / tracker.run_id / "refused.jsonl").read_text().splitlines()
    assert json.loads(refused)["values"] == {"loss (total)?": 2}
    assert caplog.text.count("refuses a record") == 1


def test_a_deleted_run_takes_its_points_when_it_is_restored(start: Start) -> None:
    tracker = start()
    client = MlflowClient(tracker.uri)
    client.delete_run(tracker.run_id)
    tracker.log({"loss": 1}, 1)
    assert not tracker.flush(stall_timeout=1)
    client.restore_run(tracker.run_id)
    tracker.finish("FINISHED")
    assert curve(tracker, "loss") == [(1, 1)]


def test_a_full_disk_does_not_stop_training(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Queue, record: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tracker = start()
    with monkeypatch.context() as patched:
        patched.setattr(Queue, "append", full)
        tracker.log({"loss": 1}, 1)
        tracker.log({"loss": 2}, 2)
    tracker.log({"loss": 3}, 3)
    tracker.finish("FINISHED")
    assert curve(tracker, "loss") == [(3, 3)]
    assert caplog.text.count("No space left on device): what is logged is lost") == 1
    assert "2 things that were logged could not be kept" in caplog.text


def test_credentials_are_sent_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    sent = []

    class Refuses(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers["Authorization"])
            self.send_error(401, "no user:sec/ret@ here")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Not into the test's output."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        uri = f"http://someone:sec%2Fret@127.0.0.1:{refusing.server_port}"
        with pytest.raises(
            UserError, match="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASS"
        ) as raised:
            open_run(uri, "test", "run", None, tmp_path)
        tracker = Tracker(uri, "0" * 32, tmp_path / "spool")
        with caplog.at_level(logging.DEBUG):
            tracker.log({"loss": 1}, 1)
            tracker.finish("FAILED", stall_timeout=1)
        refusing.shutdown()
    assert set(sent) == {f"Basic {base64.b64encode(b'someone:sec/ret').decode()}"}
    kept = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "are kept in" in caplog.text
    for text in (str(raised.value), repr(tracker), tracker.address, caplog.text, kept):
        assert "someone" not in text
        assert "sec" not in text.replace("seconds", "").replace("insecure", "")


def test_a_server_killed_in_mid_run_gets_everything_when_it_is_back(
    server: Server,
    start: Start,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two runs lose the server: one sees its restart, the other ends before it."""
    file = tmp_path / "weights.safetensors"
    file.write_bytes(os.urandom(1000))
    living, ended = start(uri=server.uri), start(uri=server.uri)
    for tracker in (living, ended):
        for step in range(1, 11):
            tracker.log({"loss": step, "learning_rate": 1.0}, step)
        assert tracker.flush()

    server.kill()
    times = []
    for step in range(11, 211):
        for tracker in (living, ended):
            began = time.perf_counter()
            tracker.log({"loss": step}, step)
            times.append(time.perf_counter() - began)
            if step % 100 == 0:
                tracker.log({"validation": step}, step)
                tracker.log_image(PICTURE, f"panels/{step}.png")
        time.sleep(0.005)
    assert statistics.median(times) < 1, "logging waited for the server"

    ended.register(file, "# Card", "killed")
    ended.finish("FINISHED", stall_timeout=3)
    folder = tmp_path / "spool" / ended.run_id
    assert "202 points, 4 files and 2 other records are kept in" in caplog.text
    assert f"python -m diffuir_platform.tracking {folder}" in caplog.text
    assert sum(f"at {server.uri} does not take" in m for m in caplog.messages) == 2, "each says it once"
    monkeypatch.setattr(sys, "argv", ["tracking", str(folder)])
    assert command.main() == 2
    assert "202 points, 4 files and 2 other records of the run" in capsys.readouterr().err

    server.start()
    # A worker that was started again from step 150, while the old one's points still wait.
    again = pickle.loads(pickle.dumps(living))
    for step in range(150, 221):
        again.log({"loss": step, "learning_rate": 1.0}, step)
    living.finish("FINISHED")
    assert command.main() == 0
    assert not folder.exists()

    assert curve(living, "loss") == [(step, step) for step in range(1, 221)]
    assert [s for s, _ in curve(living, "learning_rate")] == [*range(1, 11), *range(150, 221)]
    assert curve(ended, "loss") == [(step, step) for step in range(1, 211)]
    for tracker in (living, ended):
        assert curve(tracker, "validation") == [(100, 100), (200, 200)]
        assert artifacts(tracker, "panels") == ["panels/100.png", "panels/200.png"]
        assert MlflowClient(server.uri).get_run(tracker.run_id).info.status == "FINISHED"
    assert fetch_registered(server.uri, "killed", cache=tmp_path / "cache").read_bytes() == file.read_bytes()
    print(
        f"log() with no server: median {statistics.median(times) * 1e3:.3f} ms, most {max(times) * 1e3:.1f} ms"
    )
    assert sum("is back and has what was kept" in m for m in caplog.messages) >= 1
