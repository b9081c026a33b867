"""Guarantees 4 and 5 on a Ray cluster of several nodes, from one S3 prefix to another.

The nodes, the drivers and the store, which fails at random, are processes of their own; nodes and drivers are
killed.
"""

from __future__ import annotations

import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffuir_core.files import TEMPORARY_PREFIX
from diffuir_platform import storage
from diffuir_platform.restore.ledger import Ledger, LedgerRow
from diffuir_platform.restore.verify import verify
from support import faulty_store, restoring
from support.album import put
from support.command import diffuir_here
from support.nodes import BUCKET, Nodes, running
from support.ports import free_port
from support.restoring import POISONS

pytestmark = pytest.mark.slow

NODES, MODELS = 3, 3
PHOTOS = 150
SEEDS = range(int(os.environ.get("DIFFUIR_CHAOS", "1")))
"""Seeds of the kills and their times, one run for each; `make chaos` runs more."""
SHARE_OF_FAULTS = 0.04
"""Share of the requests for objects that the store fails."""
DENIED = "denied.png"
IN = f"{BUCKET}/in"
SECONDS = 300
"""Longest time without a new result, seconds; long, as the machine may be busy with something else."""
STALL = 60
"""Longest time without a new result that anybody should see, seconds, with the start of a driver."""

FORMATS = (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF"), ("bmp", "BMP"))


def picture(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def collection() -> dict[str, bytes]:
    """Return {key: bytes}: all formats, sizes from 1x1 to 4K, names of every kind, and some that must fail."""
    rng = np.random.default_rng(0)
    found = {}
    for i in range(PHOTOS):
        suffix, format = FORMATS[i % len(FORMATS)]
        height, width = (1, 1) if i % 29 == 0 else rng.integers(1, 200, 2)
        name = (f"{i}.{suffix}", f"deep/{i}/a.{suffix}", f"with space é/{i}.{suffix}")[i % 3]
        found[name] = encoded(picture(rng, int(height), int(width)), format)
    found |= {f"same.{suffix}": encoded(picture(rng, 20, 30), format) for suffix, format in FORMATS}
    found["large.jpg"] = encoded(picture(rng, 2160, 4096), "JPEG")
    found["../up.png"] = encoded(picture(rng, 9, 9), "PNG")
    found["corrupt.jpg"] = found["large.jpg"][:1000]
    found["empty.png"] = b""
    found["hostile.png"] = b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"
    found[DENIED] = encoded(picture(rng, 9, 9), "PNG")
    for kind in DEADLY:
        poison = np.asarray(picture(rng, 9, 9)).copy()
        poison[0, 0] = POISONS[kind]
        found[f"{kind}.png"] = encoded(Image.fromarray(poison), "PNG")
    return found


DEADLY = {"killed": "SIGKILL", "exits": "exit code 7", "crashes": "SIGSEGV", "hangs": "no further for"}
"""Photos that end their process, with a part of the reason; one that takes all memory is in `test_poison.py`."""
FAILING = {"corrupt.jpg", "empty.png", "hostile.png", DENIED, *(f"{kind}.png" for kind in DEADLY)}


@contextmanager
def faulty(upstream: str, seed: int) -> Iterator[str]:
    """Run a proxy that fails requests at random; yields its URL."""
    port = free_port()
    command = [faulty_store.__file__, port, upstream, seed, SHARE_OF_FAULTS, DENIED]
    process = subprocess.Popen([sys.executable, *map(str, command)])
    try:
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("nodes")
    with running(folder, NODES, {}, through=lambda url: faulty(url, 0)) as nodes:
        for key, data in collection().items():
            boto3.client("s3").put_object(Bucket=BUCKET.removeprefix("s3://"), Key=f"in/{key}", Body=data)
        yield nodes


class Driver:
    """A running restore and its output."""

    def __init__(self, nodes: Nodes, out: str, models: int = MODELS, longest_stall: float = SECONDS) -> None:
        environment = {**os.environ, **nodes.environment}
        self._out = out
        self._longest_stall = longest_stall
        self.process = subprocess.Popen(
            [sys.executable, restoring.__file__, IN, out, environment["RAY_ADDRESS"], str(models)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(self.process.stdout)

    def wait_for_results(self, count: int) -> None:
        for found in self._results():
            if found >= count:
                return
            assert self.process.poll() is None, f"it ended before {count} results: {self.said}"

    def finish(self) -> int:
        try:
            for _ in self._results():
                if self.process.poll() is not None:
                    break
            return self.process.wait()
        finally:
            self.kill()

    def _results(self) -> Iterator[int]:
        """Yield the number of results again and again; fails where it does not grow for SECONDS."""
        last, since = -1, time.monotonic()
        while True:
            if (found := len(results(self._out))) != last:
                last, since = found, time.monotonic()
            stall = time.monotonic() - since
            assert stall < self._longest_stall, f"stuck at {found} for {stall:.0f} s: {self.said}"
            yield found
            time.sleep(0.2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def results(out: str) -> dict[str, str]:
    """Return {name: ETag} of everything in an output except its `_diffuir`."""
    own = f"{out}/_diffuir/"
    return {
        entry.uri.removeprefix(f"{out}/"): entry.version
        for entry in storage.list_entries(out)
        if not entry.uri.startswith(own)
    }


def ledger_rows(out: str) -> dict[str, LedgerRow]:
    with Ledger(f"{out}/_diffuir") as opened:
        opened.load()
        return {row.key: row for status in ("done", "failed") for row in opened.rows(status)}


@pytest.fixture(scope="module")
def reference(nodes: Nodes) -> str:
    """The output of a run in which only the poisoned photos end a process."""
    out = f"{BUCKET}/reference"
    driver = Driver(nodes, out)
    assert driver.finish() == 1, driver.said
    assert {key for key, row in ledger_rows(out).items() if row.status == "failed"} == FAILING, driver.said
    return out


def test_what_fails_has_its_reason_and_the_rest_is_there(nodes: Nodes, reference: str) -> None:
    rows = ledger_rows(reference)
    assert rows.keys() == collection().keys()
    for kind, cause in DEADLY.items():
        reason = str(rows[f"{kind}.png"].reason)
        assert "died 2 times" in reason
        assert cause in reason
    assert "refuses to read" in str(rows[DENIED].reason)
    assert len(results(reference)) == len(rows) - len(FAILING)
    assert rows["../up.png"].target == "%dotdot/up.png"
    found = verify(reference)
    assert (found.right, found.bad, found.failed, found.unknown) == (
        len(rows) - len(FAILING),
        0,
        len(FAILING),
        0,
    )


def test_an_evaluation_on_three_nodes_gives_the_rows_of_one(
    nodes: Nodes, weights: Path, tmp_path: Path
) -> None:
    """The evaluation's folder is one that all nodes share."""
    for seed in range(8):
        clean = picture(np.random.default_rng(seed), 96, 96)
        for side, shade in (("clean", 1), ("degraded", 2)):
            put(tmp_path / "pairs" / side / f"{seed}.png", Image.eval(clean, lambda v, s=shade: v // s))
    options = ["--weights", weights, "--steps", 1]
    address = nodes.environment["RAY_ADDRESS"]
    words = ["evaluate", tmp_path / "pairs", *options]
    command = [sys.executable, "-m", "diffuir_platform.cli", *words, "--out", tmp_path / "three"]
    done = subprocess.run(
        [*map(str, command), "--address", address, "--models", "3"],
        env={**os.environ, **nodes.environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone = diffuir_here(*words, "--out", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    for name in ("table.md", "results.json", "tables/sets.csv"):
        assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    three, one = (pq.read_table(tmp_path / out / "images.parquet") for out in ("three", "one"))
    assert three.drop(["seconds"]).equals(one.drop(["seconds"]))
    report = tmp_path / "three" / "restored" / "_diffuir" / "report.json"
    assert json.loads(report.read_text())["ray_data"], "it was not restored through Ray"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_guarantee_4_kills_leave_what_an_undisturbed_run_leaves(
    nodes: Nodes, reference: str, seed: int
) -> None:
    nodes.up()
    out, rng = f"{BUCKET}/disturbed-{seed}", random.Random(seed)
    at = sorted(rng.sample(range(5, PHOTOS - 30), 4))
    driver = Driver(nodes, out)
    try:
        driver.wait_for_results(at[0])
        nodes.kill_a_process("ModelProcess", rng)
        driver.wait_for_results(at[1])
        nodes.kill_a_node("ModelProcess", rng)
        driver.wait_for_results(at[2])
    finally:
        driver.kill()
    nodes.up()
    driver = Driver(nodes, out)
    try:
        driver.wait_for_results(at[3])
        nodes.kill_a_process(rng.choice(["ModelProcess", "ray::"]), rng)
    finally:
        code = driver.finish()
    assert code == 1, driver.said

    assert results(out) == results(reference)
    expected, found = ledger_rows(reference), ledger_rows(out)
    assert found.keys() == expected.keys()
    for key, row in found.items():
        was = expected[key]
        assert (row.status, row.sha256, row.target) == (was.status, was.sha256, was.target), key
    # One row for each input in the files themselves, not only after the ledger merged them.
    files = [uri for uri, _ in storage.list_files(f"{out}/_diffuir/ledger")]
    keys = [
        key
        for uri in files
        for key in pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=["key"])["key"].to_pylist()
    ]
    assert len(keys) == len(set(keys)) == len(expected)
    left = [uri for uri, _ in storage.list_files(out) if TEMPORARY_PREFIX in uri or uri.endswith("lock.json")]
    assert left == []
    client = boto3.client("s3")
    assert not client.list_multipart_uploads(Bucket=BUCKET.removeprefix("s3://")).get("Uploads")


def test_no_long_stall_where_a_node_dies_with_no_cpu_to_spare_and_the_driver_is_run_again(
    nodes: Nodes, reference: str
) -> None:
    """With a model for each half of a node, there is no room for those of the node that dies.

    A second driver meanwhile is refused, and holds nothing up.
    """
    nodes.up()
    out, rng = f"{BUCKET}/full", random.Random(0)
    driver = Driver(nodes, out, models=2 * NODES, longest_stall=STALL)
    try:
        driver.wait_for_results(10)
        nodes.kill_a_node("ModelProcess", rng)
        second = Driver(nodes, out)
        assert second.finish() != 0
        assert "another job restores into" in "".join(second.said)
        driver.wait_for_results(60)
        driver.kill()
        driver = Driver(nodes, out, models=2 * NODES, longest_stall=STALL)
        driver.wait_for_results(90)
        nodes.kill_a_node("ModelProcess", rng)
    finally:
        code = driver.finish()
    assert code == 1, driver.said
    assert results(out) == results(reference)
