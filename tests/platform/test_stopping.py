"""Ctrl-C and SIGTERM end a command at any moment: one sentence, 130 or 143, no process and no half file left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.album import photo, put, results_below
from support.command import diffuir_here
from support.stopped import check, stopped

SLOW = pytest.mark.slow
CHAOS = "DIFFUIR_CHAOS" in os.environ
"""Whether all moments are tried; otherwise a few."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
IDS = [number.name for number in SIGNALS]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(4):
        put(tmp_path / "in" / f"{seed}.png", photo(300, 200, seed))
    return tmp_path / "in"


@pytest.mark.parametrize("delay", [0.15, 1.2])
@pytest.mark.parametrize("number", SIGNALS, ids=IDS)
def test_one_photo(photos: Path, tmp_path: Path, delay: float, number: int) -> None:
    """Once while the command begins, and once while its model is loaded or at work."""
    ended = stopped(["restore", photos / "0.png", tmp_path / "out" / "0.png"], delay, number, to_group=True)
    check(ended, number, tmp_path / "out")
    assert ended.seconds < 5


def test_a_folder_goes_on_from_there(photos: Path, tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out"
    command = ["restore", photos, out, "--weights", weights, "--steps", "1"]
    ended = stopped(command, lambda: bool(list(out.glob("*.png"))))
    check(ended, signal.SIGINT, out)
    done = diffuir_here(*command)
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert results_below(out) == {f"{seed}.png" for seed in range(4)}


@SLOW
@pytest.mark.parametrize("number", SIGNALS, ids=IDS)
@pytest.mark.parametrize("to_group", [False, True], ids=["alone", "all"])
def test_many_moments_of_one_photo_and_a_folder(
    photos: Path, tmp_path: Path, number: int, to_group: bool
) -> None:
    for moment in range(12) if CHAOS else (2, 7):
        for source in (photos / "0.png", photos):
            out = tmp_path / f"out-{source.name}-{moment}"
            ended = stopped(["restore", source, f"{out}/"], 0.1 + 0.25 * moment, number, to_group)
            if ended.code == 0:  # it was faster
                continue
            check(ended, number, out)


@SLOW
@pytest.mark.parametrize("number", SIGNALS, ids=IDS)
def test_many_moments_of_the_start_of_ray(photos: Path, tmp_path: Path, number: int) -> None:
    for moment in range(14) if CHAOS else (3, 6, 9):
        out = tmp_path / f"out-{moment}"
        command = ["restore", photos, out, "--models", 2]
        ended = stopped(command, 0.8 + 0.5 * moment, number, to_group=moment % 2 == 0)
        if ended.code == 0:
            continue
        check(ended, number, out)
