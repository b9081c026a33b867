"""Guarantees 2 and 3 on a Ray cluster of several nodes, with everything in an S3 store.

The nodes, and what ends them, are processes of their own, as `cluster/local.sh` starts them.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from diffuir_core.degradations import TASKS
from diffuir_platform import storage
from diffuir_platform.data.index import IndexRow, write_index
from support.nodes import BUCKET, Nodes, running
from support.training import SECONDS, Driver, Run, assert_close, assert_equal

pytestmark = pytest.mark.slow

STEPS, EVERY, WORKERS, NODES = 12, 2, 2, 3
SEEDS = range(int(os.environ.get("DIFFUIR_CHAOS", "1")))
"""Seeds of the order of kills, a run for each; `make chaos` takes more of them."""

CURVES = ("loss", "learning_rate", "gradient_norm", "images_per_second", *(f"loss_{task}" for task in TASKS))
PACE = {
    # The controller takes a report at each of its polls: they set the pace of the steps, so kills can hit one.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Ray counts on a lost node for up to 20 s: workers that were to start there are asked for again.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("nodes"), NODES, PACE) as nodes:
        yield nodes


def photo(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((40, 32), Image.Resampling.BICUBIC))


def put(uri: str, pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    storage.write_bytes(uri, file.getvalue())
    return uri


def rows(count: int, folder: str = f"{BUCKET}/photos") -> Iterator[IndexRow]:
    """Clean photos, and pairs of rain and haze to train and to validate on."""
    size = {"width": 40, "height": 32}
    for i in range(count):
        uri = f"{folder}/clean/{i}.png"
        yield IndexRow(
            task="any", dataset="clean", split="train", key=str(i), degraded_uri=None, clean_uri=uri, **size
        )
    for task in ("haze", "rain"):
        for split in ("test", "train"):
            for i in range(2):
                clean, bad = (f"{folder}/{task}/{split}/{side}/{i}.png" for side in ("clean", "degraded"))
                of = {"task": task, "dataset": task, "split": split, "key": str(i)}
                yield IndexRow(degraded_uri=bad, clean_uri=clean, **of, **size)


@pytest.fixture(scope="module")
def job(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Config of the run; its photos and its index are in the bucket."""
    for seed, row in enumerate(rows(8)):
        put(str(row.clean_uri), photo(seed))
        if row.degraded_uri is not None:
            put(row.degraded_uri, photo(seed) // 2 + 60)
    write_index(f"{BUCKET}/index.parquet", rows(8))
    folder = tmp_path_factory.mktemp("jobs")
    config = {
        "name": "reference",
        "storage": f"{BUCKET}/runs",
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "data": {"index": [f"{BUCKET}/index.parquet"]},
        "validation": {"index": [f"{BUCKET}/index.parquet"], "images": 1},
        "stages": [{"steps": STEPS, "crop": 16, "batch": 10}],
        "accumulate": 1,
        "learning_rate": 1e-3,
        "learning_rate_schedule": "cosine",
        "sampled_share": 0.5,
        "ema": {"decay": 0.5, "every": 1},
        "log_every": 1,
        "checkpoint_every": EVERY,
        "panels_every": STEPS,
        "threads": 2,
        "workers": WORKERS,
        "data_tasks": 1,
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.fixture(scope="module")
def reference(nodes: Nodes, job: Path) -> Run:
    """A run without any kill."""
    driver = Driver(nodes, job)
    try:
        driver.finish()
    finally:
        driver.kill()
    return Run(job, "reference")


def test_an_elastic_run_goes_on_with_fewer_workers_where_a_node_is_lost(
    nodes: Nodes, job: Path, reference: Run
) -> None:
    """It starts with more workers than the reference: the weights are the same up to float order."""
    # Must run before any driver is killed: Ray keeps the CPUs of such a driver reserved for three minutes.
    nodes.up()
    # A worker with its loading takes the whole of a node.
    most = [f"max_workers={NODES}", f"data_tasks={nodes.cpus - 1}"]
    driver = Driver(nodes, job, "name=elastic", "workers=1", *most)
    counts = []
    try:
        driver.wait_for_step(EVERY + 1)
        counts.append(sum(map(len, nodes.processes("TrainWorker").values())))
        nodes.kill_a_node("TrainWorker", random.Random(0))
        at = driver.wait_until_it_goes_on()
        driver.wait_for_step(at + 1)
        counts.append(sum(map(len, nodes.processes("TrainWorker").values())))
        driver.finish()
    finally:
        driver.kill()
        nodes.up()
    assert counts == [NODES, NODES - 1]
    run = Run(job, "elastic")
    assert list(run.curve("loss")) == list(range(1, STEPS + 1))
    assert_close(reference, run)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_workers_nodes_and_drivers_leave_no_trace(
    nodes: Nodes, job: Path, reference: Run, seed: int
) -> None:
    """Guarantee 3: resume is no interruption."""
    nodes.up()
    name, rng = f"disturbed-{seed}", random.Random(seed)
    steps = sorted(rng.sample(range(EVERY + 1, STEPS - 2), 3))
    driver = Driver(nodes, job, f"name={name}")
    try:
        driver.wait_for_step(steps[0])
        nodes.kill_a_process("TrainWorker", rng)
        driver.wait_until_it_goes_on()
        driver.wait_for_step(steps[1])
        nodes.kill_a_node("TrainWorker", rng)
        driver.wait_until_it_goes_on()
        driver.wait_for_step(steps[2])
    finally:
        driver.kill()
    run = Run(job, name)
    assert not storage.exists(f"{run.folder}/weights.safetensors"), "it was finished before it was killed"
    driver = Driver(nodes, job, f"name={name}")
    try:
        driver.finish()
    finally:
        driver.kill()
    assert any("going on from step" in line for line in driver.output), driver.output

    assert_equal(reference.weights(), run.weights())
    assert_equal(reference.state(), run.state())
    for curve in CURVES:
        assert list(run.curve(curve)) == list(range(1, STEPS + 1)), curve
    for curve in ("loss", "gradient_norm", "learning_rate"):
        assert run.curve(curve) == reference.curve(curve)
    for curve in ("validation_psnr", "validation_ssim_rain", "validation_ssim_haze"):
        assert run.curve(curve) == reference.curve(curve)
        assert sorted(run.curve(curve)) == list(range(EVERY, STEPS + 1, EVERY))


@pytest.mark.parametrize("name", ["reference", "disturbed-0"])
def test_the_store_holds_the_last_and_the_best_checkpoint_and_nothing_else(
    nodes: Nodes, job: Path, reference: Run, name: str
) -> None:
    run = Run(job, name)
    listed = {result["checkpoint_dir_name"] for result in run.snapshot()["checkpoint_results"]}
    stored = {
        parts[0]
        for uri, _ in storage.list_files(run.folder)
        for parts in [uri.removeprefix(f"{run.folder}/").split("/")]
        if len(parts) > 1
    }
    assert stored == listed
    assert run.state()["step"] == STEPS
    kept = {r["metrics"]["step"]: r["metrics"]["psnr"] for r in run.snapshot()["checkpoint_results"]}
    scores = run.curve("validation_psnr")
    assert max(scores.values()) in kept.values()
    assert len(kept) <= 3


def test_nothing_is_left_of_killed_processes_in_the_temporary_folder(nodes: Nodes, reference: Run) -> None:
    left = [
        path.name for path in nodes.scratch.iterdir() if path.name.startswith(("diffuir-c", "checkpoint"))
    ]
    assert left == []


WRONG = {
    "a bucket that is not there": (["storage=s3://nowhere/runs"], {}, "there is no bucket nowhere"),
    "a store that is not there": ([], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "nothing answers at"),
    "no credentials": (
        [],
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"},
        "there are no credentials",
    ),
    "an index that is not there": (
        [f"data.index=[{BUCKET}/none.parquet]"],
        {},
        "there is no s3://diffuir/none",
    ),
    "an index whose files are gone": ([f"data.index=[{BUCKET}/gone.parquet]"], {}, "make the index again"),
    "another index": ([f"data.index=[{BUCKET}/other.parquet]"], {}, "was begun with other images"),
    "another variant": (["variant=S"], {}, 'was begun with variant = "T", not "S"'),
    "a cluster that is not there": (["name=new"], {"RAY_ADDRESS": "127.0.0.1:9"}, "no Ray cluster answers"),
}


@pytest.fixture(scope="module")
def refused(nodes: Nodes, job: Path, reference: Run) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The commands of WRONG, all at once; those that take the reference's lock one after the other."""
    write_index(f"{BUCKET}/gone.parquet", rows(8, f"{BUCKET}/moved"))
    write_index(f"{BUCKET}/other.parquet", rows(7))
    command = [sys.executable, "-m", "diffuir_platform.cli", "train", str(job)]
    started: dict[str, subprocess.Popen[str]] = {}
    before = None
    for case, (overrides, changes, _) in WRONG.items():
        of_the_reference = not changes and not overrides[0].startswith("storage=")
        if of_the_reference and before is not None:
            before.wait(SECONDS)
        started[case] = subprocess.Popen(
            [*command, *overrides],
            env={**os.environ, **nodes.environment, **changes},
            cwd=job.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if of_the_reference:
            before = started[case]
    yield started
    for process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("case", WRONG)
def test_the_command_says_what_is_wrong_in_one_sentence(
    refused: dict[str, subprocess.Popen[str]], case: str
) -> None:
    _, said = refused[case].communicate(timeout=SECONDS)
    assert refused[case].returncode == 2, said
    assert WRONG[case][2] in said
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said


def test_an_index_of_other_photos_under_the_same_name_is_refused(
    nodes: Nodes, job: Path, reference: Run, refused: dict[str, subprocess.Popen[str]]
) -> None:
    for process in refused.values():
        process.wait(SECONDS)
    write_index(f"{BUCKET}/index.parquet", rows(7))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "diffuir_platform.cli", "train", str(job)],
            env={**os.environ, **nodes.environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        write_index(f"{BUCKET}/index.parquet", rows(8))
    assert done.returncode == 2, done.stderr
    assert "was begun with other images" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.timeout(900)
@pytest.mark.skipif("DIFFUIR_CHAOS" not in os.environ, reason="it takes five minutes: make chaos")
def test_an_elastic_run_grows_again_where_a_node_comes_back(nodes: Nodes, job: Path) -> None:
    nodes.up()
    longer = ["stages=[{steps: 2000, crop: 48, batch: 10}]", "checkpoint_every=5", "log_every=5"]
    most = ["workers=1", f"max_workers={NODES}", f"data_tasks={nodes.cpus - 1}"]
    driver = Driver(nodes, job, "name=growing", *longer, *most)

    def trainers_after(step: int) -> int:
        driver.wait_for_step(step)
        return sum(map(len, nodes.processes("TrainWorker").values()))

    try:
        counts = [trainers_after(15)]
        nodes.kill_a_node("TrainWorker", random.Random(0))
        counts.append(trainers_after(driver.wait_until_it_goes_on() + 1))
        nodes.up()
        # Ray Train looks for more room once a minute.
        counts.append(trainers_after(driver.wait_until_it_goes_on() + 1))
    finally:
        driver.kill()
    # It may begin with fewer: Ray keeps the CPUs of an earlier test's killed driver reserved for three minutes.
    assert counts[1:] == [NODES - 1, NODES]
