"""Incomplete checkpoints and scratch of killed processes are removed; checkpoints that a run needs are not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from diffuir_core import UserError
from diffuir_platform import storage
from diffuir_platform.train.checkpoints import (
    SNAPSHOT_FILE,
    remove_scratch_left_behind,
    remove_strays,
    scratch_folder,
)
from support.store import Store


def run_with(folder: str, listed: list[str], stored: list[str]) -> str:
    storage.write_bytes(f"{folder}/run.json", b"{}")
    for name in stored:
        storage.write_bytes(f"{folder}/{name}/state.pt", b"state")
    results = {"checkpoint_results": [{"checkpoint_dir_name": name, "metrics": {}} for name in listed]}
    storage.write_bytes(f"{folder}/{SNAPSHOT_FILE}", json.dumps(results).encode())
    return folder


def stored_in(folder: str) -> list[str]:
    return sorted(uri.removeprefix(f"{folder}/") for uri, _ in storage.list_files(folder))


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "run")
    store: Store = request.getfixturevalue("s3")
    return f"{store.uri}/run"


def test_checkpoints_that_no_list_names_are_removed(folder: str) -> None:
    run_with(folder, ["checkpoint_b"], ["checkpoint_a", "checkpoint_b", "checkpoint_c"])
    remove_strays(folder)
    assert stored_in(folder) == ["checkpoint_b/state.pt", SNAPSHOT_FILE, "run.json"]


def test_a_run_without_a_list_has_no_checkpoint(folder: str) -> None:
    storage.write_bytes(f"{folder}/run.json", b"{}")
    storage.write_bytes(f"{folder}/checkpoint_a/state.pt", b"half")
    remove_strays(folder)
    assert stored_in(folder) == ["run.json"]


def test_a_checkpoint_that_is_gone_is_named(folder: str) -> None:
    run_with(folder, ["checkpoint_a", "checkpoint_b"], ["checkpoint_b", "checkpoint_c"])
    with pytest.raises(UserError, match="checkpoint_a is gone"):
        remove_strays(folder)
    assert "checkpoint_c/state.pt" in stored_in(folder)


def test_a_list_that_was_cut_off_is_named(folder: str) -> None:
    run_with(folder, ["checkpoint_a"], ["checkpoint_a"])
    storage.write_bytes(f"{folder}/{SNAPSHOT_FILE}", b'{"checkpoint_res')
    with pytest.raises(UserError, match="was cut off"):
        remove_strays(folder)
    assert "checkpoint_a/state.pt" in stored_in(folder)


def test_only_the_scratch_of_killed_processes_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, others, mine = tmp_path / f"diffuir-checkpoint-{gone.pid}-x", tmp_path / "others", scratch_folder()
    for folder in (left, others):
        folder.mkdir()
    (left / "state.pt").write_bytes(b"state")
    remove_scratch_left_behind()
    assert sorted(tmp_path.iterdir()) == sorted([others, mine])
