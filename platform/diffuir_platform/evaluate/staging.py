"""The degraded sides of a set as PNG files that a restore takes, with what is at fault found before it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.files import replacing
from diffuir_core.imaging import Pixels, decode
from diffuir_core.metrics import MetricError, Signature, better_truths, check_pair, signature, truth_note

from ..data.building import threaded_map
from .rows import MeasuredImage
from .sets import Case, ImageSet

THREADS = min(8, os.cpu_count() or 1)
"""Images that are read or measured at a time."""


@dataclass(frozen=True, kw_only=True)
class Staged:
    """An image that can be restored and measured."""

    case: Case
    width: int
    height: int
    degraded_sha256: str
    clean_sha256: str | None
    pieces: tuple[str, ...]
    """Paths of its PNG files below the folder of its condition, from left to right."""
    signatures: tuple[Signature, Signature] | None
    """Signatures of both sides; None without a truth, and once they were compared."""
    note: str | None
    """Fault that it has although it can be measured; None for none."""


@dataclass(frozen=True, kw_only=True)
class StagedSet:
    """The images of a set that can be measured, and what is to be told about the others, by name."""

    of: ImageSet
    images: list[Staged] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def load(path: Path) -> Pixels:
    """Return a picture as a restore decodes it, uint8 (H, W, 3) RGB; raises `ImageError`."""
    return decode(path.read_bytes()).pixels


def save_png(path: Path, pixels: Pixels, compress_level: int = 1) -> None:
    """Write uint8 (H, W, 3) RGB as PNG by an atomic rename, making the folder where it is missing."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, "PNG", compress_level=compress_level)


def stage(image_set: ImageSet, folder: Path, known: Mapping[str, MeasuredImage]) -> StagedSet:
    """Write the degraded side of each image below `folder` as PNG, so that no second lossy encoding is measured.

    An image that can't be decoded, whose sides differ in size, or whose degraded side fits another truth better,
    is in `failed`. A file that is there already with the same pixels stays as it is, so that a restore knows it
    again. known: measured images by name; what is among them with the same bytes is not written.
    """
    found = StagedSet(of=image_set, failed=dict(image_set.failed), notes=dict(image_set.notes))
    work = partial(_stage, folder=folder, piece=image_set.piece, known=known)
    readable = []
    for case, one in threaded_map(work, image_set.cases, THREADS, 2 * THREADS):
        if isinstance(one, str):
            found.failed[case.name] = one
        else:
            readable.append(one)
    swapped = _swapped(readable)
    for image in readable:
        if image.case.name in swapped:
            for piece in image.pieces:
                (folder / piece).unlink(missing_ok=True)
            continue
        found.images.append(replace(image, signatures=None))  # 8 KB of each image
        if image.note is not None:
            found.notes[image.case.name] = image.note
    found.failed.update(swapped)
    return found


def is_same(image: Staged, measured: MeasuredImage | None) -> bool:
    """Whether an image was measured already: its two sides have the same bytes."""
    hashes = image.degraded_sha256, image.clean_sha256
    return measured is not None and (measured.degraded_sha256, measured.clean_sha256) == hashes


def _stage(
    case: Case, folder: Path, piece: int | None, known: Mapping[str, MeasuredImage]
) -> tuple[Case, Staged | str]:
    """Return the case with its staged image, or the reason why it has none. Thread-safe."""
    try:
        data = case.degraded.read()
        degraded = decode(data).pixels
        signatures, note, clean_hash = None, None, None
        if case.clean is not None:
            truth_data = case.clean.read()
            truth = decode(truth_data)
            check_pair(degraded, truth.pixels)
            signatures = signature(degraded), signature(truth.pixels)
            note, clean_hash = truth_note(truth.format), hashlib.sha256(truth_data).hexdigest()
    except (UserError, MetricError, OSError) as error:
        return case, str(error)
    height, width = degraded.shape[:2]
    count = math.ceil(width / (piece or width))
    names = [f"{case.name}.png"] if count == 1 else [f"{case.name}/{n}.png" for n in range(count)]
    image = Staged(
        case=case,
        width=width,
        height=height,
        degraded_sha256=hashlib.sha256(data).hexdigest(),
        clean_sha256=clean_hash,
        pieces=tuple(names),
        signatures=signatures,
        note=note,
    )
    if not is_same(image, known.get(case.name)):
        for number, name in enumerate(names):
            start = number * (piece or width)
            _write(folder / name, np.ascontiguousarray(degraded[:, start : start + (piece or width)]))
    return case, image


def _write(path: Path, pixels: Pixels) -> None:
    """Write a PNG, unless one of the same pixels is there."""
    if path.is_file() and np.array_equal(load(path), pixels):
        return
    save_png(path, pixels)


def _swapped(images: list[Staged]) -> dict[str, str]:
    """Return {name: reason} of the images of a set that fit the truth of another one better."""
    paired = [(image, image.signatures) for image in images if image.signatures is not None]
    if not paired:
        return {}
    degraded, clean = zip(*(signatures for _, signatures in paired), strict=True)
    found = better_truths(degraded, clean).items()
    return {
        paired[one][
            0
        ].case.name: f"the truth of {paired[other][0].case.name} fits it better: look whether names "
        "are swapped"
        for one, other in found
    }
