"""Guarantee 4 on one machine: a repeated command resumes, refuses other settings, and leaves a clean output."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffuir_core import UserError
from diffuir_core.imaging import decode
from diffuir_platform import storage
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.ledger import SCHEMA
from support.album import diffuir, files_below, photo, put, results_below
from support.command import diffuir_here
from support.restoring import POISON, run
from support.store import Store

PHOTOS = {f"{i}.png" for i in range(6)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(sorted(PHOTOS)):
        put(tmp_path / "in" / name, photo(seed=seed))
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def rows(out: Path) -> dict[str, dict[str, object]]:
    """Read the ledger as another program would; returns {key: row}, one for each input."""
    table = pq.read_table(out / "_diffuir/ledger")
    assert table.schema.names == SCHEMA.names
    found = table.to_pylist()
    assert len({row["key"] for row in found}) == len(found)
    return {row["key"]: row for row in found}


def contents(out: Path) -> dict[str, bytes]:
    """Return the bytes of every result."""
    return {name: (out / name).read_bytes() for name in results_below(out)}


def test_the_same_again_skips_what_is_done(ray: object, photos: Path, out: Path) -> None:
    first = run(str(photos), str(out), None, 1)
    assert (first.done, first.skipped, results_below(out)) == (6, 0, PHOTOS)
    times = {name: (out / name).stat().st_mtime_ns for name in PHOTOS}
    again = run(str(photos), str(out), None, 1)
    assert (again.done, again.skipped, again.exit_code) == (0, 6, 0)
    assert "skipped 6 photos that an earlier run had done" in again.lines()
    assert {name: (out / name).stat().st_mtime_ns for name in PHOTOS} == times
    assert {row["status"] for row in rows(out).values()} == {"done"}


def test_what_is_new_changed_missing_or_cut_off_is_done_again(ray: object, photos: Path, out: Path) -> None:
    run(str(photos), str(out), None, 1)
    expected = contents(out)
    put(photos / "new.png", photo(seed=99))
    put(photos / "0.png", photo(seed=98))
    (out / "1.png").unlink()
    (out / "2.png").write_bytes(expected["2.png"][:100])
    again = run(str(photos), str(out), None, 1)
    assert (again.done, again.skipped) == (4, 3)
    assert results_below(out) == PHOTOS | {"new.png"}
    found = contents(out)
    assert found["0.png"] != expected["0.png"]
    assert {name: found[name] for name in PHOTOS - {"0.png"}} == {
        name: expected[name] for name in PHOTOS - {"0.png"}
    }
    assert rows(out).keys() == PHOTOS | {"new.png"}


def test_a_failure_stays_until_it_is_retried_or_its_file_changes(
    ray: object, photos: Path, out: Path
) -> None:
    put(photos / "bad.png", b"no picture")
    put(photos / "worse.png", b"no picture either")
    assert set(run(str(photos), str(out), None, 1).failed) == {"bad.png", "worse.png"}
    again = run(str(photos), str(out), None, 1)
    assert (again.done, again.failures, again.failed_before, again.exit_code) == (0, 2, 2, 1)
    retried = run(str(photos), str(out), None, 1, retry_failed=True)
    assert (retried.done, retried.skipped, retried.failures, retried.failed_before) == (0, 0, 2, 0)
    put(photos / "bad.png")
    (photos / "worse.png").unlink()
    mended = run(str(photos), str(out), None, 1)
    assert (mended.done, mended.failures, mended.exit_code) == (1, 0, 0)
    assert rows(out).keys() == PHOTOS | {"bad.png"}


def test_other_settings_are_refused_with_the_difference_named(
    ray: object, photos: Path, out: Path, weights: Path, tmp_path: Path
) -> None:
    options = RestoreOptions(weights=str(weights), steps=1)
    restore(photos, out, options)
    before = contents(out)
    for change, text in (
        ({"steps": 2}, "steps was 1 and is 2"),
        ({"seed": 7, "format": "bmp"}, "format was null and is bmp, seed was 0 and is 7"),
        ({"weights": None}, "weights was "),
    ):
        with pytest.raises(UserError, match=re.escape(text)):
            restore(photos, out, options.model_copy(update=change))
    shutil.copytree(photos, tmp_path / "other")
    with pytest.raises(UserError, match="input was "):
        restore(tmp_path / "other", out, options)
    assert contents(out) == before
    # Settings that results do not depend on may change.
    assert restore(photos, out, options.model_copy(update={"batch_size": 3, "models": 1})).skipped == 6


def test_restart_leaves_nothing_of_the_earlier_run(
    ray: object, photos: Path, out: Path, weights: Path
) -> None:
    restore(photos, out, RestoreOptions(weights=str(weights), steps=1))
    put(out / "mine.txt", b"not of the ledger")
    summary = restore(photos, out, RestoreOptions(weights=str(weights), steps=1, format="bmp"), restart=True)
    assert summary.done == 6
    assert results_below(out) == {f"{name}.bmp" for name in PHOTOS} | {"mine.txt"}
    assert rows(out).keys() == PHOTOS


def test_a_photo_that_kills_its_process_is_given_up_and_the_rest_is_done(
    ray: object, photos: Path, out: Path
) -> None:
    pixels = np.asarray(photo()).copy()
    pixels[0, 0] = POISON
    put(photos / "poison.png", Image.fromarray(pixels))
    summary = run(str(photos), str(out), None, 1)
    assert (summary.done, set(summary.failed)) == (6, {"poison.png"})
    assert "died 2 times" in summary.failed["poison.png"]
    assert results_below(out) == PHOTOS


def test_other_batches_and_workers_give_the_same_files(
    ray: object, photos: Path, weights: Path, tmp_path: Path
) -> None:
    """The files are the same byte for byte on one kind of device."""
    for seed, side in enumerate((16, 33, 48, 48, 64)):
        put(photos / f"other-{seed}.jpg", photo(side, side, seed))
    options = RestoreOptions(weights=str(weights), steps=2)
    restore(photos, tmp_path / "one", options.model_copy(update={"batch_size": 1}))
    restore(photos, tmp_path / "many", options.model_copy(update={"batch_size": 11, "models": 2}))
    assert contents(tmp_path / "one") == contents(tmp_path / "many")
    # A single photo is restored without Ray, by the same stages.
    restore(photos / "other-1.jpg", tmp_path / "alone.jpg", options)
    assert (tmp_path / "alone.jpg").read_bytes() == contents(tmp_path / "one")["other-1.jpg"]


def test_from_a_bucket_to_a_folder_and_back(ray: object, s3: Store, photos: Path, tmp_path: Path) -> None:
    def restored(target: str) -> str:
        return "\n".join(run(f"{s3.uri}/in", target, None, 1).lines())

    for name in PHOTOS:
        storage.write_bytes(f"{s3.uri}/in/deep/{name}", (photos / name).read_bytes())
    storage.write_bytes(f"{s3.uri}/in/../up.png", (photos / "0.png").read_bytes())
    local = tmp_path / "x" / "local"
    assert restored(str(local)).startswith("restored 7 of 7 photos")
    assert results_below(local) == {f"deep/{name}" for name in PHOTOS} | {"%dotdot/up.png"}
    assert results_below(tmp_path) == {f"in/{name}" for name in PHOTOS} | {
        f"x/local/{name}" for name in files_below(local)
    }
    restored(f"{s3.uri}/out")
    for name, data in contents(local).items():
        assert storage.read_bytes(f"{s3.uri}/out/{name}") == data
    assert "skipped 7 photos" in restored(f"{s3.uri}/out")


@pytest.mark.slow
def test_a_killed_command_resumes_where_it_was(
    ray: object, photos: Path, out: Path, weights: Path, tmp_path: Path
) -> None:
    """With the real model and the command line: SIGKILL for the whole process group, then the same command
    again."""
    for seed in range(6, 30):
        put(photos / f"{seed}.png", photo(128, 128, seed))
    # Each process measures which precision is faster, and on a busy machine may find another one.
    options = ["--weights", str(weights), "--steps", "1", "--precision", "float32"]
    command = [sys.executable, "-m", "diffuir_platform.cli", "restore", str(photos), str(out), *options]
    killed = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(out.glob("*.png"))) < 8:
        assert killed.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    (out / "_diffuir" / "lock.json").unlink()  # or the next command waits for it to expire: see test_lock.py
    (out / ".diffuir-0123456789abcdef.part").write_bytes(b"what a killed writer leaves")
    done = diffuir("restore", photos, out, *options)
    assert done.returncode == 0, done.stderr
    assert results_below(out) == {path.name for path in photos.iterdir()}
    undisturbed = tmp_path / "undisturbed"
    same = RestoreOptions(weights=str(weights), steps=1, precision="float32")
    assert restore(photos, undisturbed, same).exit_code == 0
    assert contents(out) == contents(undisturbed)
    assert {key: row["sha256"] for key, row in rows(out).items()} == {
        key: row["sha256"] for key, row in rows(undisturbed).items()
    }

    assert diffuir_here("restore", photos, out, "--verify").stdout.startswith(
        "as the ledger says: 30 results; missing or changed: 0"
    )
    (out / "3.png").unlink()
    (out / "4.png").write_bytes(b"")
    put(out / "stranger.png")
    checked = diffuir_here("restore", photos, out, "--verify")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "as the ledger says: 28 results; missing or changed: 2",
        "  3.png: its result is missing",
        "  4.png: its result was changed",
        "in the output but not in the ledger: 1 other file",
    ]


def test_the_report_counts_and_shows_what_was_done(ray: object, photos: Path, out: Path) -> None:
    put(photos / "<script>alert(1)<.png", photo(seed=5))
    put(photos / "bad.png", b"no picture")
    run(str(photos), str(out), None, 1)
    figures = json.loads((out / "_diffuir/report.json").read_text())
    assert (figures["run"]["done"], figures["run"]["failed"]) == (7, 1)
    assert sum(span["photos"] for span in figures["run"]["throughput"]) == 8
    assert [one["key"] for one in figures["failed"]] == ["bad.png"]
    assert figures["output_holds"]["megapixels"] == pytest.approx(7 * 24 * 32 / 1e6, abs=1e-3)
    page = (out / "_diffuir/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page), "it needs another file"
    assert page.count("data:image/jpeg") == 14


def test_a_plan_says_how_long_it_takes_and_writes_nothing(photos: Path, out: Path, weights: Path) -> None:
    put(photos / "bad.png", b"no picture")
    done = diffuir(
        "restore",
        photos,
        out,
        "--weights",
        weights,
        "--steps",
        "1",
        "--plan",
        "--nodes",
        "10",
        "--price",
        "3.6",
    )
    assert done.returncode == 0, done.stderr
    assert not out.exists()
    assert done.stdout.startswith("7 photos, ")
    assert "a sample of 7 was restored here, 1 of them failed: 0.00 megapixels" in done.stdout
    assert re.search(
        r"10 nodes like this machine: [\d.,]+ images/s, \d+ s, [\d.]+ at 3.6 an hour", done.stdout
    )
    assert "the bottleneck is the model" in done.stdout


def test_the_output_holds_photos(ray: object, photos: Path, out: Path) -> None:
    run(str(photos), str(out), None, 1)
    for name in PHOTOS:
        assert decode((out / name).read_bytes()).pixels.shape == (24, 32, 3)
        assert rows(out)[name]["bytes"] == (out / name).stat().st_size
