"""Pairs that are made in a moment, and restores without a network, for tests of evaluations."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffuir_platform.evaluate import Settings
from diffuir_platform.evaluate.staging import load, save_png

SETTINGS = Settings(weights="model.safetensors", steps=3, seed=0, precision="float32")


def photo(seed: int, height: int = 20, width: int = 26) -> NDArray[np.uint8]:
    """Return a smooth photo, uint8 (height, width, 3)."""
    small = np.random.default_rng(seed).integers(60, 200, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def make_pair(folder: Path, stem: str, seed: int = 0, suffix: str = ".png") -> None:
    """Write a pair whose degraded side is half as bright."""
    clean = photo(seed)
    save_png(folder / "clean" / f"{stem}.png", clean)
    path = folder / "degraded" / f"{stem}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(clean // 2).save(path)


def brighten(source: Path, target: Path) -> dict[str, str]:
    """Restore by doubling every level, which undoes `make_pair` up to one level."""
    for path in source.rglob("*.png"):
        save_png(target / path.relative_to(source), load(path) * 2)
    return {}


def keep(source: Path, target: Path) -> dict[str, str]:
    """Restore nothing: copy."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    return {}


class Stopped(Exception):  # noqa: N818 - it names what happens
    """The end of a run in its middle."""


class Resumable:
    """A restore that, as a collection's does, leaves alone what it has restored of unchanged files.

    restored: how often each photo was restored. left: photos until it is stopped.
    """

    def __init__(self) -> None:
        self.restored: dict[str, int] = {}
        self.left = 10**9
        self._known: dict[str, int] = {}

    def __call__(self, source: Path, target: Path) -> dict[str, str]:
        for path in sorted(source.rglob("*.png")):
            name, version = path.relative_to(source).as_posix(), path.stat().st_mtime_ns
            if self._known.get(f"{target}/{name}") == version:
                continue
            if self.left == 0:
                raise Stopped
            self.left -= 1
            save_png(target / name, load(path) * 2)
            self._known[f"{target}/{name}"] = version
            self.restored[name] = self.restored.get(name, 0) + 1
        return {}
