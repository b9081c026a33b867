"""Incomplete checkpoints and scratch of killed processes are removed; checkpoints that a run needs are not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from diffuir_platform.train.checkpoints import (
    remove_scratch_left_behind,
    scratch_folder,
)


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
