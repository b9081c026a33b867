"""A few photos are restored without Ray: the same files and rows; a photo that kills its process is one line."""

from __future__ import annotations

import os
import signal
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
from diffuir_platform.restore.dispatch import Dispatch
from diffuir_platform.restore.inputs import Item
from diffuir_platform.restore.local import LocalRestorer, prepared
from diffuir_platform.restore.stages import FinishedPhoto
from diffuir_platform.restore.worker_process import WorkerProcess
from diffuir_platform.runtime import RayDidNotStart
from support.album import diffuir, photo, put, results_below
from support.restoring import POISON, Cheap

ROWS = ("key", "status", "target", "format", "width", "height", "bytes", "sha256", "precision", "attempt")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(3):
        put(tmp_path / "in" / f"{seed}.png", photo(seed=seed))
    return tmp_path / "in"


def poisoned(file: Path) -> Path:
    pixels = np.asarray(photo()).copy()
    pixels[0, 0] = POISON
    return put(file, Image.fromarray(pixels))


def item(file: Path) -> Item:
    return Item(file.name, str(file), file.name, None)


def restored(files: list[Path], out: Path, options: RestoreOptions) -> list[FinishedPhoto]:
    with WorkerProcess() as process:
        local = LocalRestorer(process, prepared(Cheap, fetch_weights(None), options, str(out)))
        return list(local.finished_photos(iter(map(item, files)), lambda: False))


def workers(command: psutil.Process) -> list[psutil.Process]:
    """The processes that a command has for its photos; a Ray may have others below it."""
    return [one for one in command.children() if "restore.worker" in " ".join(one.cmdline())]


def rows(out: Path) -> list[dict[str, object]]:
    return sorted(pq.read_table(out / "_diffuir/ledger").select(ROWS).to_pylist(), key=lambda row: row["key"])


def test_the_files_and_rows_are_those_of_ray(
    ray: object, photos: Path, tmp_path: Path, weights: Path
) -> None:
    from diffuir_platform.restore import restore

    put(photos / "bad.png", b"no picture")
    done = diffuir("restore", photos, tmp_path / "here", "--weights", weights, "--steps", "1")
    assert done.returncode == 1, done.stderr
    assert "restored 3 of 4 photos" in done.stdout
    summary = restore(photos, tmp_path / "ray", RestoreOptions(weights=str(weights), steps=1))
    assert summary.done == 3
    assert rows(tmp_path / "here") == rows(tmp_path / "ray")
    for name in results_below(tmp_path / "ray"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "ray" / name).read_bytes()


CODE = """
import sys
from diffuir_platform.cli import main
try:
    main()
finally:
    print("LOADED", *sorted({"torch", "ray", "mlflow", "pyarrow", "s3fs", "scipy", "sympy"} & set(sys.modules)))
"""


def test_the_command_loads_little_for_one_photo(photos: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, "restore", photos / "0.png", f"{tmp_path}/out/"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["LOADED"]
    assert done.stderr == "restoring 0.png ...\n"


def test_guarantee_5_a_photo_that_kills_its_process_is_given_up(photos: Path, tmp_path: Path) -> None:
    files = [photos / "0.png", poisoned(photos / "poison.png"), photos / "1.png"]
    first, poison, last = restored(files, tmp_path / "out", RestoreOptions(attempts=2))
    assert (first.photo.reason, last.photo.reason) == (None, None)
    assert poison.photo.reason == (
        "the process that was to restore it died 2 times "
        "(killed by SIGKILL, as the system does where memory runs out)"
    )
    assert poison.attempt == 2
    assert results_below(tmp_path / "out") == {"0.png", "1.png"}


def test_a_killed_process_is_replaced_and_its_photo_tried_again(photos: Path, tmp_path: Path) -> None:
    with WorkerProcess() as process:
        local = LocalRestorer(
            process, prepared(Cheap, fetch_weights(None), RestoreOptions(), str(tmp_path / "out"))
        )
        assert local.restored(item(photos / "0.png")).attempt == 1
        (child,) = workers(psutil.Process())
        child.kill()
        assert local.restored(item(photos / "1.png")).attempt == 2
    assert results_below(tmp_path / "out") == {"0.png", "1.png"}
    assert workers(psutil.Process()) == []


def test_the_process_ends_with_the_command(tmp_path: Path) -> None:
    code = (
        "import time; from diffuir_platform.restore.worker_process import WorkerProcess; WorkerProcess(); "
        "print(flush=True); time.sleep(60)"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert command.stdout is not None
    command.stdout.readline()
    (child,) = workers(psutil.Process(command.pid))
    os.kill(command.pid, signal.SIGKILL)
    command.communicate()
    child.wait(20)


def test_weights_that_cannot_be_used_are_refused(photos: Path, tmp_path: Path) -> None:
    weights = put(tmp_path / "truncated.safetensors", b"\x08\0\0\0\0\0\0\0{}      ")
    done = diffuir("restore", photos, tmp_path / "out", "--weights", weights)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_ray_pays_where_more_work_is_left_than_it_takes_to_start(photos: Path, tmp_path: Path) -> None:
    with WorkerProcess() as process:
        options = RestoreOptions(overwrite=True)
        local = LocalRestorer(process, prepared(Cheap, fetch_weights(None), options, str(tmp_path / "out")))
        assert not local.needs_more_than(60, 10**9), "no rate is known yet"
        deadline = time.monotonic() + 60
        while not local.needs_more_than(0, 1):
            assert time.monotonic() < deadline
            local.restored(item(photos / "0.png"))
        assert local.needs_more_than(60, 10**9)
        assert not local.needs_more_than(10**9, 3)


def test_without_ray_in_time_the_rest_is_done_here_with_a_note(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(address: object, device: object, **more: object) -> object:
        raise RayDidNotStart("Ray did not start on this busy machine within 120 s")

    monkeypatch.setattr("diffuir_platform.restore.dispatch.ray_session", slow)
    dispatch = Dispatch(str(tmp_path / "out"), RestoreOptions(), fetch_weights(None), Cheap, None, 60.0)
    names = [f"{seed}.png" for seed in range(3)]
    finished = list(dispatch.finished_photos(iter(item(photos / name) for name in names), lambda: 3))
    assert [one.photo.item.key for one in finished] == names
    assert results_below(tmp_path / "out") == set(names)
    (remark,) = dispatch.remarks
    assert remark.startswith("Ray did not start on this busy machine within 120 s, so ")


def test_a_run_goes_on_in_the_precision_of_its_results(photos: Path, tmp_path: Path, weights: Path) -> None:
    command = ("restore", photos, tmp_path / "out", "--weights", weights, "--steps", "1")
    assert diffuir(*command).returncode == 0
    # As if the results were of a machine whose answer is the other one.
    (part,) = (tmp_path / "out/_diffuir/ledger").iterdir()
    table = pq.read_table(part)
    (own,) = set(table["precision"].to_pylist())
    (other,) = {"float32", "bfloat16"} - {own}
    column = table.schema.get_field_index("precision")
    pq.write_table(table.set_column(column, table.schema.field(column), [[other] * len(table)]), part)
    put(photos / "new.png", photo(seed=9))
    done = diffuir(*command)
    assert done.returncode == 0, done.stderr
    assert "restored 1 of 1 photo" in done.stdout
    assert {row["precision"] for row in rows(tmp_path / "out")} == {other}
