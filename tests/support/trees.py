"""Data sets of tiny photos, arranged like the published ones."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from diffuir_platform import storage
from diffuir_platform.data.building import IndexSummary, build_index
from diffuir_platform.data.index import IndexRow, open_index
from diffuir_platform.data.settings import IndexOptions

SIZE = (8, 6)
"""Default width and height of a photo, pixels."""
PAIRS = IndexOptions(layout="pairs", task="rain")
STRAY = {"Thumbs.db": b"x", ".DS_Store": b"x", "readme.txt": b"x"}

Files = Iterable[str] | Mapping[str, tuple[int, int] | bytes]


def make_tar(uri: str, members: dict[str, bytes]) -> bytes:
    """Write a tar with members of those names and contents to a URI; returns its bytes."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    storage.write_bytes(uri, data.getvalue())
    return data.getvalue()


def make_tree(folder: Path, files: Files) -> Path:
    """Write photos, of SIZE or of the size given for each, or bytes below `folder`, in the format of their
    endings."""
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files, SIZE)
    for number, (name, content) in enumerate(contents.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            photo(content, number).save(path)
    return folder


def photo(size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    """Return noise as an RGB picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_mat(path: Path, name: str, count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """Write a MATLAB file with one array of photos; returns the array, uint8 (N, H, W, 3)."""
    shape = (count, size[1], size[0], 3)
    photos = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: photos}, do_compression=True)
    return photos


def upload(folder: Path, uri: str) -> str:
    """Copy a tree into a store; returns `uri`."""
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write_bytes(storage.join(uri, path.relative_to(folder).as_posix()), path.read_bytes())
    return uri


def tree_of_pairs(folder: Path, count: int = 5) -> Path:
    """Write a tree of `count` pairs for the layout "pairs"."""
    return make_tree(folder, [f"{side}/{n}.png" for n in range(count) for side in ("degraded", "clean")])


def built(root: Path | str, **changes: Any) -> tuple[IndexSummary, list[IndexRow]]:
    """Build a new index of pairs beside `root`; returns its summary and its rows."""
    out = f"{root}-{random.randrange(10**9)}.parquet"
    summary = build_index(str(root), out, PAIRS.model_copy(update=changes))
    return summary, list(open_index(out).rows())
