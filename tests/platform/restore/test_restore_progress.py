"""The progress file of a restore: its counts while the run goes on, and what ended it."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from diffuir_core import UserError
from diffuir_core.restorer import Restoration
from diffuir_platform import storage
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore import progress as progress_module
from diffuir_platform.restore.progress import Counts, Progress, ProgressFile
from diffuir_platform.restore.summary import Summary
from support.album import photo, put


class Darker:
    """Restores each image to one that is darker by one."""

    precision = "float32"

    def __init__(self, weights: Path | None) -> None: ...

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        return [Restoration(np.maximum(image, 1) - 1, None) for image in images]


def written(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_photo_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "a.png", photo())
    file = tmp_path / "out" / "_diffuir" / "requests" / "job.json"
    restore(tmp_path / "a.png", f"{tmp_path}/out/", restorer=Darker, progress_file=str(file))
    counts = written(file)
    assert counts.pop("images_per_second") > 0
    assert counts == {
        "done": 1,
        "failed": 0,
        "skipped": 0,
        "listed": 1,
        "listing_ended": True,
        "error": None,
    }


def test_why_the_only_photo_failed_is_its_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no photo")
    file = tmp_path / "job.json"
    summary = restore(tmp_path / "a.png", f"{tmp_path}/out/", restorer=Darker, progress_file=str(file))
    assert summary.exit_code == 1
    counts = written(file)
    assert (counts["done"], counts["failed"]) == (0, 1)
    assert counts["error"] == f"a.png: {summary.failed['a.png']}"


def test_a_collection_is_counted_and_a_second_run_skips_what_is_done(tmp_path: Path, ray: object) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for number in range(3):
        put(tmp_path / "in" / f"{number}.png", photo())
    (tmp_path / "in" / "bad.png").write_bytes(b"no photo")
    file = tmp_path / "job.json"
    for done, skipped in ((3, 0), (0, 3)):
        restore(tmp_path / "in", tmp_path / "out", restorer=Darker, progress_file=str(file))
        counts = written(file)
        assert (counts["done"], counts["failed"], counts["skipped"]) == (done, 1, skipped)
        assert (counts["listed"], counts["listing_ended"], counts["error"]) == (4, True, None)
        assert (counts["images_per_second"] > 0) == (done > 0)


@pytest.mark.parametrize("source", ["none.png", "none"])
def test_a_run_that_cannot_start_tells_why(tmp_path: Path, source: str) -> None:
    file = tmp_path / "job.json"
    with pytest.raises(UserError) as raised:
        restore(tmp_path / source, tmp_path / "out", restorer=Darker, progress_file=str(file))
    assert written(file)["error"] == str(raised.value)


def test_weights_that_are_missing_are_told_too(tmp_path: Path) -> None:
    put(tmp_path / "a.png", photo())
    options = RestoreOptions(weights=str(tmp_path / "none.safetensors"))
    file = tmp_path / "job.json"
    with pytest.raises(UserError, match=r"none\.safetensors"):
        restore(tmp_path / "a.png", tmp_path / "b.png", options, progress_file=str(file))
    assert "none.safetensors" in written(file)["error"]


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), "interrupted"), (ValueError("secret"), "internal error (ValueError)")],
)
def test_an_interruption_and_an_internal_error_are_told_without_their_text(
    tmp_path: Path, error: BaseException, told: str
) -> None:
    file = tmp_path / "job.json"
    with pytest.raises(type(error)), ProgressFile(str(file)):
        raise error
    assert told in written(file)["error"]
    assert "secret" not in file.read_text()


def test_the_file_follows_the_run_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_WRITES", 0.02)
    file = tmp_path / "job.json"
    with ProgressFile(str(file)) as progress_file:
        until(file.exists)
        assert written(file)["listed"] is None
        counts = Counts(done=5, listed=9)
        progress_file.follow(lambda: counts)
        until(lambda: written(file)["done"] == 5)
        counts = Counts(done=9, listed=9, listing_ended=True)
    assert written(file)["done"] == 9


def test_it_is_written_at_most_every_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(storage, "write_bytes", lambda uri, data: writes.append(data))
    done = iter(range(10**9))
    with ProgressFile(str(tmp_path / "job.json")) as progress_file:
        progress_file.follow(lambda: Counts(done=next(done)))
        time.sleep(0.3)
    assert len(writes) <= 2


def test_a_store_that_is_away_stops_nothing_and_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_WRITES", 0.01)
    (tmp_path / "file").write_bytes(b"")
    place = tmp_path / "file" / "job.json"
    put(tmp_path / "a.png", photo())
    with caplog.at_level(logging.WARNING):
        summary = restore(tmp_path / "a.png", tmp_path / "b.png", restorer=Darker, progress_file=str(place))
    assert summary.done == 1
    lines = [record.getMessage() for record in caplog.records if "progress file" in record.getMessage()]
    assert len(lines) == 1
    assert f"{place} is not up to date: can't write" in lines[0]


def test_a_store_that_hangs_is_not_waited_for_longer_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_FOR_THE_LAST_WRITE", 0.2)
    monkeypatch.setattr(storage, "write_bytes", lambda uri, data: time.sleep(5))
    began = time.monotonic()
    with ProgressFile(str(tmp_path / "job.json")):
        pass
    assert time.monotonic() - began < 3
    assert "did not answer within 0.2 s" in caplog.text


def test_a_uri_of_no_store_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ftp"):
        restore(tmp_path, tmp_path / "out", restorer=Darker, progress_file="ftp://host/job.json")


def test_where_inputs_are_not_counted_the_listing_has_ended() -> None:
    counts = Progress(Summary("out", done=2, failures=1), None).counts()
    assert (counts.listed, counts.listing_ended, counts.done, counts.failed) == (None, True, 2, 1)
