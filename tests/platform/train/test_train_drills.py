"""Training on the real Ray Train while its checkpoints, tracker, disk or lock are cut, filled or denied.

A few of each kind in the slow tests, all of them in `make chaos`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient

from diffuir_core import UserError, open_weights
from diffuir_platform.tracking import open_run
from diffuir_platform.train import train
from diffuir_platform.train.checkpoints import SNAPSHOT_FILE, WEIGHTS_FILE
from diffuir_platform.train.state import STATE_FILE
from support.disks import enlarge, small_disk
from support.mlflow_server import Server, asking_for_a_password
from support.small_run import STEPS, config, settings, weights_of

pytestmark = pytest.mark.slow

CHAOS = "DIFFUIR_CHAOS" in os.environ
"""Whether every case is tried; otherwise a few."""
INITIAL = "models:/first@best"
"""Weights that the interrupted run was begun with; the registry is that of the server."""


@pytest.fixture(scope="module")
def interrupted(
    photos: Path, weights: Path, server: Server, ray: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Storage of a run that has all its checkpoints and was killed before its export, which lies beside it."""
    storage = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(storage / "cache"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracker = open_run(server.uri, "weights", "first", None, storage / "mlartifacts")
        tracker.register(weights, "# The card", "first", "best")
        tracker.finish("FINISHED")
        train(config(photos, storage, tracking_uri=server.uri, init_from=INITIAL))
        shutil.rmtree(storage / "cache")
        yield storage


@pytest.fixture
def storage(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of that storage, with things of a user's in the run's folder."""
    run = shutil.copytree(interrupted / "test", tmp_path / "storage" / "test")
    (run / WEIGHTS_FILE).unlink()
    (run / "checkpoint_best_keep").mkdir()
    (run / "checkpoint_best_keep" / WEIGHTS_FILE).write_bytes(b"mine")
    (run / "notes.txt").write_text("mine")
    return tmp_path / "storage"


def check_whole(storage: Path, expected: Path) -> None:
    """The run ended with the weights of one that nothing disturbed, and what is the user's is there."""
    found, wanted = weights_of(storage), weights_of(expected)
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    assert (storage / "test" / "checkpoint_best_keep" / WEIGHTS_FILE).read_bytes() == b"mine"
    assert (storage / "test" / "notes.txt").read_text() == "mine"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def of_another_shape(file: Path) -> None:
    file.write_text(json.dumps({"checkpoints": ["checkpoint_000001"]}))


def of_strangers(file: Path) -> None:
    snapshot = json.loads(file.read_text())
    for result in snapshot["checkpoint_results"]:
        result["checkpoint_dir_name"] = "checkpoint_2020-01-01_00-00-00.000000"
    file.write_text(json.dumps(snapshot))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "newest cut": (STATE_FILE, cut),
    "list of another shape": (SNAPSHOT_FILE, of_another_shape),
    "newest flipped": (STATE_FILE, flip),
    "newest emptied": (STATE_FILE, lambda file: file.write_bytes(b"")),
    "newest without its state": (STATE_FILE, Path.unlink),
    "newest without its weights": (WEIGHTS_FILE, Path.unlink),
    "newest removed": (STATE_FILE, lambda file: shutil.rmtree(file.parent)),
    "list emptied": (SNAPSHOT_FILE, lambda file: file.write_bytes(b"")),
    "list cut": (SNAPSHOT_FILE, lambda file: file.write_bytes(file.read_bytes()[:-40])),
    "list removed": (SNAPSHOT_FILE, Path.unlink),
    "list of strangers": (SNAPSHOT_FILE, of_strangers),
}


@pytest.mark.parametrize("damage", DAMAGES if CHAOS else list(DAMAGES)[:2])
def test_a_run_whose_folder_was_damaged_ends_as_if_nothing_had_been(
    photos: Path,
    interrupted: Path,
    storage: Path,
    server: Server,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """The weights that it began with, in a registry, are not needed again."""
    file, spoil = DAMAGES[damage]
    *_, newest = sorted((storage / "test").glob("checkpoint_2*/"))
    spoil((storage / "test" if file == SNAPSHOT_FILE else newest) / file)
    train(config(photos, storage, tracking_uri=server.uri, init_from=INITIAL))
    printed = capsys.readouterr().out
    named = {SNAPSHOT_FILE: SNAPSHOT_FILE}.get(file, newest.name)
    assert (named if damage != "list of strangers" else "checkpoint_2020-01-01_00-00-00.000000") in printed
    assert f"going on from step {STEPS if file == SNAPSHOT_FILE else STEPS - 2}" in printed
    check_whole(storage, interrupted)


@pytest.mark.parametrize(
    "tracker", ["away for a while", "another", "deleted", "password", "away"][: None if CHAOS else 2]
)
def test_a_run_goes_on_whatever_became_of_its_tracker(
    photos: Path,
    interrupted: Path,
    storage: Path,
    server: Server,
    runs: Path,
    caplog: pytest.LogCaptureFixture,
    tracker: str,
) -> None:
    record = json.loads((storage / "test" / "run.json").read_text())
    *_, newest = sorted((storage / "test").glob("checkpoint_2*/"))
    shutil.rmtree(newest)
    client, uri = MlflowClient(server.uri), server.uri
    began = int(time.time() * 1000)
    came_back = threading.Timer(8, server.start)
    try:
        if tracker in ("away for a while", "away"):
            server.kill()
        if tracker == "away for a while":
            came_back.start()
        if tracker == "another":
            uri = f"sqlite:///{runs / 'mlflow.db'}"
            client = MlflowClient(uri)
        if tracker == "deleted":
            client.delete_run(record["mlflow_run"])
        with asking_for_a_password() as refusing:
            asked = refusing if tracker == "password" else uri
            train(config(photos, storage, tracking_uri=asked, init_from=INITIAL))
    finally:
        came_back.cancel()
        if tracker == "away":
            server.start()
    check_whole(storage, interrupted)
    assert open_weights(storage / "test" / WEIGHTS_FILE).recipe["init_from"] == {}
    after = json.loads((storage / "test" / "run.json").read_text())["mlflow_run"]
    if tracker in ("another", "deleted"):
        assert f"has no run {record['mlflow_run']}: a new one goes on" in caplog.text
        assert client.get_run(after).data.tags["diffuir.continues"] == record["mlflow_run"]
        steps = [point.step for point in client.get_metric_history(after, "loss")]
        # Before them, those that the tracker did not have yet at the checkpoint.
        assert steps[-2:] == [STEPS - 1, STEPS]
    else:
        assert after == record["mlflow_run"]
        assert f"is kept in {storage / 'mlspool' / after} until it can" in caplog.text
    if tracker == "password":
        assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in caplog.text
    if tracker in ("password", "away"):
        folder = storage / "mlspool" / after
        assert f"deliver them with: python -m diffuir_platform.tracking {folder}" in caplog.text
    else:
        info = client.get_run(after).info
        assert (info.status, info.end_time > began) == ("FINISHED", True)
        assert not (storage / "mlspool" / after).exists()
        steps = [point.step for point in client.get_metric_history(after, "loss")]
        assert steps == sorted(set(steps))


ONE_CHECKPOINT = 18 * 2**20
"""Bytes of a checkpoint of variant T, rounded up."""


@pytest.mark.parametrize("room", [2.4, 0.5, 1.4][: None if CHAOS else 1])
def test_on_a_full_disk_the_last_good_checkpoint_stays_and_the_run_goes_on(
    photos: Path, finished: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: float
) -> None:
    """room: checkpoints that the disk of the run's folder has room for; two are kept, besides the new one."""
    tracker = f"sqlite:///{runs / 'mlflow.db'}"
    with small_disk(tmp_path / "disk", int(room * ONE_CHECKPOINT)) as disk:
        run = config(photos, disk, tracking_uri=tracker, max_failures=0)
        for _ in range(2 if CHAOS else 1):
            with pytest.raises(
                UserError, match="a disk is full, that of the run's folder or of the temporary"
            ):
                train(run)
        capsys.readouterr()
        enlarge(disk, 5 * ONE_CHECKPOINT)
        train(run)
        printed = capsys.readouterr().out
        assert ("going on from step" in printed) == (room > 1)
        if room > 2:
            assert "going on from step 4" in printed
        found, wanted = weights_of(disk), weights_of(finished)
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())


@pytest.mark.skipif(not CHAOS, reason="a Ray of its own: make chaos")
def test_on_a_full_temporary_disk_it_says_so(photos: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(settings(photos, tmp_path / "runs", max_failures=0)))
    with small_disk(tmp_path / "disk", ONE_CHECKPOINT // 2) as disk:
        environment = {**os.environ, "TMPDIR": str(disk), "RAY_TMPDIR": "/tmp"}
        command = [sys.executable, "-m", "diffuir_platform.cli", "train", str(job)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
    assert done.returncode == 2
    assert "a disk is full" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace of processes")
def test_the_lock_is_not_taken_from_a_live_run_in_another_namespace_of_this_host(
    photos: Path, tmp_path: Path
) -> None:
    """As two containers of the same host name, in which the other's process numbers say nothing."""
    job = tmp_path / "job.yaml"
    changes = {"stages": [{"steps": 5000, "crop": 16, "batch": 10}], "checkpoint_every": 20, "log_every": 5}
    job.write_text(yaml.safe_dump(settings(photos, tmp_path / "runs", **changes)))
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*apart, sys.executable, "-m", "diffuir_platform.cli", "train", str(job)]
    other = config(photos, tmp_path / "runs", **changes)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as holder:
        assert holder.stdout is not None
        try:
            steps = (line for line in holder.stdout if line.startswith("step "))
            assert next(steps)
            with pytest.raises(UserError, match="another job trains test"):
                train(other)
            assert next(steps), "it goes on"
        finally:
            holder.send_signal(signal.SIGKILL)
    if CHAOS:  # it waits until the dead one's beats have stopped for long enough
        ended = other.model_copy(update={"stop_after": 0.1})
        with pytest.raises(UserError, match="stopped after"):
            train(ended)
