"""Opening a run of MLflow: a new one, and one that is resumed, whatever became of its tracker."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from diffuir_core import UserError
from diffuir_platform.tracking import open_run
from support.mlflow_server import Start, curve


@pytest.mark.parametrize("uri", ["http://{nobody}", "sqlite:////proc/absent/mlflow.db", "nosuch://tracker"])
def test_a_tracker_that_cannot_be_reached_at_the_start_is_named(start: Start, uri: str, nobody: str) -> None:
    with pytest.raises(UserError, match=r"the tracker at .* can't be used \(.+\): set tracking_uri"):
        start(uri=uri.format(nobody=nobody))


def test_a_run_goes_on_where_its_tracker_cannot_be_reached(
    start: Start, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = start()
    tracker.log({"loss": 1}, 1)
    assert tracker.flush()
    away = start(tracker.run_id, uri=f"http://{nobody}")
    away.log({"loss": 2}, 2)
    assert not away.flush(stall_timeout=0.5)
    assert f"what is logged is kept in {away.spool / tracker.run_id} until it can" in caplog.text
    back = start(tracker.run_id)
    assert back.run_id == tracker.run_id
    back.finish("FINISHED")
    assert curve(back, "loss") == [(1, 1), (2, 2)]


@pytest.mark.parametrize("lost", ["deleted", "another tracker"])
def test_a_run_that_the_tracker_does_not_have_is_gone_on_from_by_a_new_one(
    start: Start, tmp_path: Path, empty: Path, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    first = start()
    options = {}
    if lost == "deleted":
        MlflowClient(first.uri).delete_run(first.run_id)
    else:
        shutil.copyfile(empty, tmp_path / "other.db")
        options = {"uri": f"sqlite:///{tmp_path / 'other.db'}"}
    second = start(first.run_id, **options)
    assert second.run_id != first.run_id
    assert f"has no run {first.run_id}: a new one goes on" in caplog.text
    second.log({"loss": 2}, 2)
    second.finish("FINISHED")
    assert curve(second, "loss") == [(2, 2)]
    tags = MlflowClient(second.uri).get_run(second.run_id).data.tags
    assert tags["diffuir.continues"] == first.run_id


def test_a_deleted_experiment_is_named_with_a_way_on(start: Start) -> None:
    first = start(experiment="gone")
    client = MlflowClient(first.uri)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(
        UserError, match=r"experiment gone was deleted: .*, or set experiment to another name"
    ):
        start(first.run_id, experiment="gone")
    assert start(first.run_id, experiment="other").run_id != first.run_id


def test_a_spool_that_cannot_be_written_is_named(database: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="name another folder"):
        open_run(database, "test", "run", None, tmp_path, spool=tmp_path / "file")


def test_a_relative_database_is_the_same_from_every_folder(
    start: Start, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()  # makes the database
    file = Path(database.removeprefix("sqlite:///"))
    monkeypatch.chdir(file.parent)
    assert start(uri=f"sqlite:///{file.name}").uri == database
