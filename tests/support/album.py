"""Photos on disk, a folder with every kind of file that users' folders hold, and the command line."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms

ALBUM_PHOTOS = {
    "a.jpg", "a.png", "deep/er/b.webp", "deep/with space é.tiff", "deep/c.bmp",
    "grey.png", "alpha.png", "png_named.JPG",
}  # fmt: skip
"""Photos of the album that can be restored."""
ALBUM_BAD = {"bad/truncated.jpg", "bad/empty.png", "bad/eps.jpg", "bad/bomb.png"}
"""Files of the album that look like photos and must fail."""


def photo(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    """Return a gradient with noise, RGB."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([x * 5, y * 7, x * 2 + y * 3], -1) % 200
    return Image.fromarray((base + np.random.default_rng(seed).integers(0, 55, base.shape)).astype(np.uint8))


def put(path: Path, picture: Image.Image | bytes | None = None, **options: object) -> Path:
    """Write a picture, bytes, or a default photo to `path`, making its folders; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    else:
        (picture or photo()).save(path, **options)
    return path


def files_below(folder: Path) -> set[str]:
    """Return the relative paths of all files below `folder`."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def results_below(folder: Path) -> set[str]:
    """Return the relative paths of a restore's results, without its own `_diffuir`."""
    return {name for name in files_below(folder) if not name.startswith("_diffuir/")}


def diffuir(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "diffuir_platform.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def bomb() -> bytes:
    """Return a small PNG whose header says that it is 20,000 x 20,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (header, data, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def make_album(folder: Path) -> None:
    """Fill `folder` with ALBUM_PHOTOS, ALBUM_BAD and three files that a restore skips."""
    gps = Image.Exif()
    gps[ExifTags.Base.Orientation] = 6
    gps[ExifTags.Base.Artist] = "someone"
    gps[ExifTags.IFD.GPSInfo] = {1: "N", 2: (47.0, 22.0, 11.0)}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    put(folder / "a.jpg", quality=95, exif=gps.tobytes(), icc_profile=profile)
    put(folder / "a.png")
    put(folder / "deep/er/b.webp", photo(17, 40, seed=1))
    put(folder / "deep/with space é.tiff", photo(seed=2))
    put(folder / "deep/c.bmp", photo(seed=3))
    put(folder / "grey.png", photo(seed=4).convert("L"))
    put(folder / "alpha.png", photo(seed=5).convert("RGBA"))
    put(folder / "png_named.JPG", b"")
    photo(seed=6).save(folder / "png_named.JPG", format="PNG")
    whole = io.BytesIO()
    photo(64, 64).save(whole, format="JPEG")
    put(folder / "bad/truncated.jpg", whole.getvalue()[:400])
    put(folder / "bad/empty.png", b"")
    put(folder / "bad/eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    put(folder / "bad/bomb.png", bomb())
    put(folder / "notes.txt", b"not a photo")
    put(folder / ".hidden.png")
    put(folder / ".thumbnails/a.png")
