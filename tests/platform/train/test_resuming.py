"""A run goes on from the newest checkpoint that can be loaded, whatever happened to its folder; see also
test_train_stops.py."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import _CheckpointManagerState

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.train.checkpoints import SNAPSHOT_FILE, WEIGHTS_FILE
from diffuir_platform.train.resuming import prepare_checkpoints
from diffuir_platform.train.state import STATE_FILE
from support.store import Store

FIRST, SECOND, THIRD = (f"checkpoint_2026-01-0{day}_10-00-00.000000" for day in (1, 2, 3))


def state(step: int) -> bytes:
    buffer = io.BytesIO()
    torch.save({"step": step, "model": torch.arange(1000)}, buffer)
    return buffer.getvalue()


def run_with(folder: str, listed: list[str], stored: list[str], scores: list[float] | None = None) -> str:
    """A run's folder; listed: in the order of Ray Train's list, whose newest is the last by name."""
    storage.write_bytes(f"{folder}/run.json", b"{}")
    for step, name in enumerate(stored):
        storage.write_bytes(f"{folder}/{name}/{STATE_FILE}", state(step))
        storage.write_bytes(f"{folder}/{name}/{WEIGHTS_FILE}", b"weights")
    results = [
        {"version": 0, "checkpoint_dir_name": name, "metrics": {"psnr": score}}
        for name, score in zip(listed, scores or [0.0] * len(listed), strict=True)
    ]
    by_age = sorted(results, key=lambda result: str(result["checkpoint_dir_name"]))
    snapshot = {
        "ray_version": "2.60.0",
        "checkpoint_results": results,
        "checkpoint_report_indices": [by_age.index(result) for result in results],
        "latest_checkpoint_result": by_age[-1] if by_age else None,
        "pending_training_results": [],
        "pending_validation_specs": [],
        "current_report_index": len(results),
        "validated_checkpoint_dir_names": [],
        "timed_out_validation_checkpoint_dir_names": [],
        "failed_validation_checkpoint_dir_names": [],
    }
    storage.write_bytes(f"{folder}/{SNAPSHOT_FILE}", json.dumps(snapshot).encode())
    return folder


def checkpoints_in(folder: str) -> list[str]:
    names = (uri.removeprefix(f"{folder}/").partition("/") for uri, _ in storage.list_files(folder))
    return sorted({name for name, _, file in names if file})


def listed_in(folder: str) -> tuple[list[str], str | None]:
    """The names in Ray Train's list and its latest, as Ray Train itself reads them."""
    read = _CheckpointManagerState.parse_raw(storage.read_bytes(f"{folder}/{SNAPSHOT_FILE}"))
    latest = read.latest_checkpoint_result
    return [r.checkpoint_dir_name for r in read.checkpoint_results], latest and latest.checkpoint_dir_name


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    store: Store = request.getfixturevalue("s3")
    return f"{store.uri}/run"


def test_a_run_in_order_is_left_as_it_is(folder: str) -> None:
    run_with(folder, [FIRST, SECOND], [FIRST, SECOND])
    before = storage.read_bytes(f"{folder}/{SNAPSHOT_FILE}")
    assert prepare_checkpoints(folder) == []
    assert storage.read_bytes(f"{folder}/{SNAPSHOT_FILE}") == before
    assert checkpoints_in(folder) == [FIRST, SECOND]


def test_checkpoints_that_no_list_names_are_removed_and_a_users_folders_stay(folder: str) -> None:
    run_with(folder, [SECOND], [FIRST, SECOND, THIRD, "checkpoint_best_keep", "mine"])
    assert prepare_checkpoints(folder) == []
    assert checkpoints_in(folder) == [SECOND, "checkpoint_best_keep", "mine"]


def test_without_a_list_nothing_is_removed_and_the_newest_is_taken(folder: str) -> None:
    run_with(folder, [], [FIRST, SECOND, "checkpoint_best_keep"])
    for damage in ("gone", "empty", "cut off", "of another form"):
        file = f"{folder}/{SNAPSHOT_FILE}"
        if damage == "gone":
            storage.remove_file(file)
        else:
            content = {"empty": b"", "cut off": b'{"checkpoint_res', "of another form": b"[1]"}[damage]
            storage.write_bytes(file, content)
        (wrong,) = prepare_checkpoints(folder)
        assert SNAPSHOT_FILE in wrong
        assert checkpoints_in(folder) == [FIRST, SECOND, "checkpoint_best_keep"]
        assert listed_in(folder) == ([FIRST, SECOND], SECOND)


def test_a_run_killed_during_its_first_upload_begins_anew(folder: str) -> None:
    storage.write_bytes(f"{folder}/run.json", b"{}")
    storage.write_bytes(f"{folder}/{FIRST}/{STATE_FILE}", state(1)[:500])
    wrong = prepare_checkpoints(folder)
    assert any(FIRST in line for line in wrong)
    assert not storage.exists(f"{folder}/{SNAPSHOT_FILE}")


@pytest.mark.parametrize("damage", ["cut", "flipped", "without weights", "gone"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(folder: str, damage: str) -> None:
    # By score, the newest is not the last of the list.
    run_with(folder, [THIRD, FIRST, SECOND], [FIRST, SECOND, THIRD], scores=[1.0, 2.0, 3.0])
    file = f"{folder}/{THIRD}/{STATE_FILE}"
    if damage == "cut":
        storage.write_bytes(file, state(2)[:-400])
    elif damage == "flipped":
        content = bytearray(state(2))
        content[len(content) // 2] ^= 255
        storage.write_bytes(file, bytes(content))
    elif damage == "without weights":
        storage.remove_file(f"{folder}/{THIRD}/{WEIGHTS_FILE}")
    else:
        storage.remove_folder(f"{folder}/{THIRD}")
    (wrong,) = prepare_checkpoints(folder)
    assert wrong.startswith(THIRD)
    assert listed_in(folder) == ([FIRST, SECOND], SECOND)
    assert prepare_checkpoints(folder) == []


def test_an_older_checkpoint_that_is_gone_does_not_matter(folder: str) -> None:
    run_with(folder, [FIRST, SECOND], [SECOND])
    assert prepare_checkpoints(folder) == [f"{FIRST} is gone"]
    assert listed_in(folder) == ([SECOND], SECOND)


@pytest.mark.parametrize("listed", ["gone", "damaged"])
def test_where_the_list_names_no_good_one_another_that_is_there_is_taken(folder: str, listed: str) -> None:
    """Somebody has brought an older checkpoint back."""
    run_with(folder, [SECOND, THIRD], [FIRST] if listed == "gone" else [FIRST, SECOND, THIRD])
    if listed == "damaged":
        for name in (SECOND, THIRD):
            storage.write_bytes(f"{folder}/{name}/{STATE_FILE}", b"nonsense")
    wrong = prepare_checkpoints(folder)
    assert sorted(line.split()[0] for line in wrong) == [SECOND, THIRD]
    assert listed_in(folder) == ([FIRST], FIRST)
    assert checkpoints_in(folder) == ([FIRST] if listed == "gone" else [FIRST, SECOND, THIRD])


def test_without_any_good_checkpoint_the_run_is_refused_and_nothing_removed(folder: str) -> None:
    run_with(folder, [FIRST, SECOND], [FIRST])
    storage.write_bytes(f"{folder}/{FIRST}/{STATE_FILE}", b"nonsense")
    with pytest.raises(UserError, match=rf"no checkpoint in .* can be loaded \(.*{FIRST}.*bring one back"):
        prepare_checkpoints(folder)
    assert checkpoints_in(folder) == [FIRST]
