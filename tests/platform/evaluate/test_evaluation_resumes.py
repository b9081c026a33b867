"""An evaluation that is stopped anywhere and started again: the same tables, and nothing restored twice."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffuir_core.errors import UserError
from diffuir_core.metrics import MetricError
from diffuir_platform.evaluate import evaluate, evaluate_sets, rows, write_report
from diffuir_platform.evaluate.measures import Measure, Meter, Photos, Score, fidelity
from diffuir_platform.evaluate.report import Report
from diffuir_platform.evaluate.rows import FILE, read_images
from diffuir_platform.evaluate.sets import Condition, pair_sets
from diffuir_platform.evaluate.staging import load, save_png
from support.command import diffuir_here
from support.evaluating import SETTINGS, Resumable, Stopped, make_pair, photo

PAIRS = [f"{name}/{stem}" for name in ("dark", "dusk") for stem in "123"]


class Counting(Meter):
    """A meter that counts, and that is stopped."""

    def score(self, measure: Measure, photos: Photos) -> Score:
        if LEFT[0] == 0:
            raise Stopped
        LEFT[0] -= 1
        found = super().score(measure, photos)
        MEASURED[f"{found.before}"] += measure.metric == "psnr"
        return found


LEFT = [10**9]
MEASURED: Counter[str] = Counter()


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "SECONDS_BETWEEN_PARTS", 0.0)
    monkeypatch.setattr("diffuir_platform.evaluate.evaluation.THREADS", 1)
    LEFT[0] = 10**9
    MEASURED.clear()
    for seed, name in enumerate(PAIRS):
        make_pair(tmp_path / "pairs" / name[:4], name[5:], seed)
    return tmp_path / "pairs"


def run(pairs: Path, restore: Resumable, out: Path) -> Report:
    sets = pair_sets(pairs, fidelity("released-y", "rgb"), Condition(steps=3))
    report = evaluate_sets(sets, lambda _: restore, SETTINGS, Counting(), out=out, source=str(pairs))
    write_report(report, out)
    return report


def written(out: Path) -> dict[str, bytes]:
    """All tables of an evaluation, and its rows without times."""
    files = {path.name: path.read_bytes() for path in sorted((out / "tables").iterdir())}
    files |= {name: (out / name).read_bytes() for name in ("table.md", "results.json")}
    images = [replace(image, seconds=None) for image in read_images(str(out / FILE))]
    return files | {FILE: repr(images).encode()}


@pytest.mark.parametrize("photos", [0, 1, 3, 5])
@pytest.mark.parametrize("scores", [0, 5, 9, 23])
def test_stopped_in_the_restore_and_in_the_measurement(
    pairs: Path, tmp_path: Path, photos: int, scores: int
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(pairs, Resumable(), whole)
    MEASURED.clear()
    restore = Resumable()
    for restore.left, LEFT[0] in ((photos, 0), (10**9, scores), (10**9, 10**9)):
        try:
            run(pairs, restore, parts)
        except Stopped:
            assert not (parts / "table.md").exists()
    assert written(parts) == written(whole)
    assert restore.restored == dict.fromkeys((f"{name}.png" for name in PAIRS), 1)
    # Two protocols; an image whose measurement was stopped in its middle is measured again.
    assert sum(MEASURED.values()) <= 2 * len(PAIRS) + 2
    run(pairs, restore, parts)
    assert written(parts) == written(whole)
    assert set(restore.restored.values()) == {1}
    assert sum(MEASURED.values()) <= 2 * len(PAIRS) + 2
    assert not (parts / "_diffuir" / "degraded").exists()
    assert not (parts / "_diffuir" / "scores").exists()


def test_only_what_changed_is_restored_and_measured_again(pairs: Path, tmp_path: Path) -> None:
    out, restore = tmp_path / "out", Resumable()
    before = run(pairs, restore, out)
    MEASURED.clear()
    save_png(pairs / "dark" / "degraded" / "1.png", photo(0) // 3)
    make_pair(pairs / "dusk", "4", seed=9)
    (pairs / "dusk" / "degraded" / "1.png").unlink()
    (pairs / "dusk" / "clean" / "1.png").unlink()
    after = run(pairs, restore, out)
    assert {name for name, times in restore.restored.items() if times > 1} == {"dark/1.png"}
    assert sum(MEASURED.values()) == 4
    assert [image.name for image in after.measured] == [
        *("dark/1", "dark/2", "dark/3", "dusk/2", "dusk/3", "dusk/4"),
    ]
    assert after.measured[0].scores[0].before != before.measured[0].scores[0].before


def test_other_settings_are_refused_and_begun_anew_on_demand(pairs: Path, tmp_path: Path) -> None:
    out, restore = tmp_path / "out", Resumable()
    evaluate(pairs, restore, SETTINGS, out)
    other = replace(SETTINGS, protocol="rgb", seed=1, files={"niqe": "a"}, restore={"quality": 9})
    changed = {"niqe": "null and is a", "protocol": "released-y and is rgb", "quality": "null and is 9"}
    differences = ", ".join(
        f"{name} was {change}" for name, change in (changed | {"seed": "0 and is 1"}).items()
    )
    with pytest.raises(UserError, match=rf"other settings \({differences}\): evaluate into another"):
        evaluate(pairs, restore, other, out)
    sets = pair_sets(pairs, fidelity("rgb"), Condition(steps=3))
    source = str(pairs.absolute())
    report = evaluate_sets(sets, lambda _: restore, other, out=out, source=source, restart=True)
    assert {image.protocol for image in report.images} == {"rgb"}
    assert evaluate(pairs, restore, other, out).images == report.images


def test_rows_say_what_was_measured_and_how(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluate(pairs, Resumable(), replace(SETTINGS, weights_sha256="ab"), out)
    table = pq.read_table(out / FILE).to_pylist()
    assert [(row["set"], row["key"], row["metric"]) for row in table] == [
        (*name.split("/"), metric) for name in PAIRS for metric in ("psnr", "ssim")
    ]
    first = table[0]
    assert (first["protocol"], first["width"], first["height"], first["weights_sha256"]) == (
        *("released-y", 26, 20, "ab"),
    )
    data = (pairs / "dark" / "degraded" / "1.png").read_bytes()
    assert first["degraded_sha256"] == hashlib.sha256(data).hexdigest()
    assert first["restored"] == ["restored/dark/1.png"]
    assert load(out / first["restored"][0]).shape == (20, 26, 3)


def test_an_image_that_one_metric_refuses_is_in_no_mean(pairs: Path, tmp_path: Path) -> None:
    class Refusing(Meter):
        def score(self, measure: Measure, photos: Photos) -> Score:
            if measure.metric == "ssim" and photos.degraded.max() < 90:
                raise MetricError("too dark for it")
            return super().score(measure, photos)

    for side in ("degraded", "clean"):
        save_png(pairs / "dark" / side / "dim.png", photo(5) // 4)
    sets = pair_sets(pairs, fidelity("released-y"), Condition(steps=3))
    report = evaluate_sets(sets, lambda _: Resumable(), SETTINGS, Refusing())
    assert report.failed == {"dark/dim": "too dark for it"}
    assert report.sets()[0].images == 3


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was(weights: Path, tmp_path: Path) -> None:
    """With the real model: SIGKILL for the whole process group in the restore, then the same command again."""
    rng = np.random.default_rng(0)
    for seed in range(24):
        clean = np.repeat(np.repeat(rng.integers(60, 200, (16, 16, 3), dtype=np.uint8), 8, 0), 8, 1)
        for side, pixels in (("clean", clean), ("degraded", clean // 2)):
            save_png(tmp_path / "pairs" / side / f"{seed:02d}.png", pixels)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    options = ["--weights", str(weights), "--steps", "1", "--out"]
    command = [sys.executable, "-m", "diffuir_platform.cli", "evaluate", str(tmp_path / "pairs"), *options]
    process = subprocess.Popen([*command, str(killed)], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list((killed / "restored" / "_diffuir").glob("ledger/*.parquet")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for lock in killed.rglob("lock.json"):  # or the next command waits for it to expire: see test_lock.py
        lock.unlink()
    before = ledger(killed)
    assert before
    for out in (killed, whole):
        done = diffuir_here("evaluate", tmp_path / "pairs", *options, out)
        assert done.returncode == 0, done.stderr
    assert written(killed) == {
        name: data.replace(b"whole", b"killed") for name, data in written(whole).items()
    }
    after = ledger(killed)
    assert len(after) == 24
    assert {key: after[key] for key in before} == before


def ledger(out: Path) -> dict[str, object]:
    """Time at which each photo was restored, by the ledger of the restore."""
    found = pq.read_table(out / "restored" / "_diffuir" / "ledger").to_pylist()
    return {row["key"]: row["finished"] for row in found}
