"""Guarantee 5: a photo that crashes, hangs or takes all memory is one failed row with its reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffuir_platform.inference import fetch_weights
from diffuir_platform.restore import RestoreOptions
from diffuir_platform.restore.inputs import Item
from diffuir_platform.restore.local import LocalRestorer, prepared
from diffuir_platform.restore.worker_process import WorkerProcess
from support import restoring
from support.album import photo, put, results_below
from support.nodes import named
from support.restoring import POISONS, TIMEOUT, Cheap

REASONS = {
    "killed": "killed by SIGKILL, as the system does where memory runs out",
    "exits": "it ended with exit code 7",
    "crashes": "crashed with SIGSEGV",
    "allocates": "memory ran out",
    "hangs": f"it got no further for {TIMEOUT:g} s",
}


def poisoned(kind: str) -> Image.Image:
    pixels = np.asarray(photo()).copy()
    pixels[0, 0] = POISONS[kind]
    return Image.fromarray(pixels)


def threshold(gigabytes: float) -> str:
    """Share of the memory that may be used, so that `gigabytes` more than now fit into it.

    A share of a large machine would take longer to fill than a photo may take.
    """
    memory = psutil.virtual_memory()
    return f"{min(0.95, memory.percent / 100 + gigabytes * 1e9 / memory.total):.4f}"


@pytest.mark.parametrize("kind", REASONS)
def test_the_reason_of_a_photo_by_itself(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", threshold(1.2))
    put(tmp_path / "good.png", photo())
    put(tmp_path / "bad.png", poisoned(kind))
    options = RestoreOptions(attempts=1, timeout=4 if kind == "hangs" else 60)
    with WorkerProcess() as process:
        local = LocalRestorer(process, prepared(Cheap, fetch_weights(None), options, str(tmp_path / "out")))
        first, bad, last = (
            local.restored(Item(name, str(tmp_path / name), result, None))
            for name, result in (("good.png", "1.png"), ("bad.png", "bad.png"), ("good.png", "2.png"))
        )
    assert (first.photo.reason, last.photo.reason) == (None, None)
    why = REASONS[kind].replace(f"{TIMEOUT:g} s", "4 s")
    assert bad.photo.reason == f"the process that was to restore it died 1 times ({why})"
    assert results_below(tmp_path / "out") == {"1.png", "2.png"}


@pytest.mark.slow
def test_all_of_them_through_ray_data(tmp_path: Path) -> None:
    for i in range(60):
        put(tmp_path / f"in/{i:02d}.png", photo(seed=i))
    for kind in REASONS:
        put(tmp_path / f"in/3-{kind}.png", poisoned(kind))
    done = subprocess.run(
        [sys.executable, restoring.__file__, tmp_path / "in", tmp_path / "out", "", "2"],
        env={**os.environ, "RAY_memory_usage_threshold": threshold(4.3)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1, done
    rows = pq.read_table(tmp_path / "out/_diffuir/ledger").to_pylist()
    failed = {row["key"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert failed == {
        f"3-{kind}.png": f"the process that was to restore it died 2 times ({reason})"
        for kind, reason in REASONS.items()
    }
    assert len(rows) == 60 + len(REASONS)
    assert results_below(tmp_path / "out") == {f"{i:02d}.png" for i in range(60)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["ReadBatchSource", "_QueueActor"] if "DIFFUIR_CHAOS" in os.environ else ["_QueueActor"]
)
def test_the_source_of_the_batches_may_die(part: str, tmp_path: Path) -> None:
    for i in range(150):
        put(tmp_path / f"in/{i:03d}.png", photo(seed=i))
    command = [sys.executable, restoring.__file__, tmp_path / "in", tmp_path / "out", "", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while len(results_below(tmp_path / "out")) < 20:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (found,) = named(part, psutil.Process(process.pid).children(recursive=True))
    found.kill()
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert len(results_below(tmp_path / "out")) == 150
