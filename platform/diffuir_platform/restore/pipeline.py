"""Photos through Ray Data: read and decode, restore, encode and write, a status each.

Three stages that run at the same time: tasks that read, processes that hold a model each, tasks that write.
Pixels pass between them inside Ray; only the small status rows reach the driver.
"""

from __future__ import annotations

import os
import pickle
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from diffuir_core.errors import UserError
from diffuir_core.files import replacing
from diffuir_core.imaging import (
    DEFAULT_LIMITS,
    ExifPolicy,
    Image,
    ImageError,
    Pixels,
    check_bytes,
    decode,
    encode,
)

from ..runtime import Resources
from .discovery import Item
from .settings import RestoreOptions
from .summary import Status

if TYPE_CHECKING:
    from diffuir_core.restorer import Restoration

# Keys and paths travel as bytes: a file's name need not be text.
_MANIFEST = pa.schema(
    [("key", pa.binary()), ("source", pa.binary()), ("target", pa.binary()), ("format", pa.string())]
)
_PHOTO = pa.schema(
    [
        ("key", pa.binary()),
        ("target", pa.binary()),
        ("format", pa.string()),
        ("image", pa.large_binary()),
        ("reason", pa.string()),
        ("precision", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_STATUS = pa.schema(
    [
        ("key", pa.binary()),
        ("reason", pa.string()),
        ("notes", pa.string()),
        ("precision", pa.string()),
        ("seconds", pa.float64()),
    ]
)

_BLOCK_BYTES = 16 * 2**20
"""A stage hands on what it has once it has this much."""


class RestoresPixels(Protocol):
    """The part of `diffuir_core.Restorer` that is used here."""

    def restorations(self, images: Sequence[np.ndarray]) -> list[Restoration]:
        """uint8 (H, W, 3) arrays -> restored ones of the same shapes, and how."""


def restored(items: Sequence[Item], options: RestoreOptions, resources: Resources) -> Iterator[Status]:
    """Restore and write all `items`, yielding a status for each as it is done, in no fixed order.

    Needs a running Ray. Raises UserError where the process that holds a model dies.
    """
    import ray
    import ray.data

    ray.data.DataContext.get_current().target_max_block_size = _BLOCK_BYTES
    models = ray.data.ActorPoolStrategy(size=resources.models)
    tasks = ray.data.TaskPoolStrategy(size=resources.io_tasks)
    statuses = (
        ray.data.from_arrow(_manifest(items))
        .map_batches(
            read_photos,
            fn_kwargs={"exif": options.exif, "truncated": options.truncated},
            batch_size=None,
            batch_format="pyarrow",
            compute=tasks,
        )
        .map_batches(
            Model,
            fn_constructor_args=(options, resources.model_threads),
            batch_size=options.batch_size,
            batch_format="pyarrow",
            compute=models,
            num_cpus=resources.model_cpus,
            num_gpus=resources.model_gpus,
            ray_remote_args_fn=_never_again,
        )
        .map_batches(
            write_photos,
            fn_kwargs={"quality": options.quality},
            batch_size=None,
            batch_format="pyarrow",
            compute=tasks,
        )
    )
    try:
        for batch in statuses.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield Status(
                    key=os.fsdecode(row["key"]),
                    failed=row["reason"] is not None,
                    reason=row["reason"] or "",
                    notes=row["notes"],
                    precision=row["precision"],
                    seconds=row["seconds"],
                )
    except ray.exceptions.ActorDiedError as error:
        raise UserError(_why_it_died(error)) from error


def _why_it_died(error: Exception) -> str:
    if "creation task" in str(error):
        return f"the model could not be loaded where it was to run: {str(error).splitlines()[-1]}"
    return (
        "the process that holds the model died, most often for want of memory: "
        "what is written stays; restore fewer or smaller photos at once (--batch-size 1)"
    )


def _never_again() -> dict[str, int]:
    """Ray's own default brings a process that dies of a photo back for ever, with the same photo.

    That this is a function also keeps Ray from moving the reading into the model's process.
    """
    return {"max_restarts": 0, "max_task_retries": 0}


def _manifest(items: Sequence[Item]) -> list[pa.Table]:
    """The items in blocks, small enough that stages overlap and that the last ones are shared out."""
    size = min(max(len(items) // 256, 1), 16)
    blocks = (items[start : start + size] for start in range(0, len(items), size))
    return [
        pa.table(
            {
                "key": [os.fsencode(item.key) for item in block],
                "source": [os.fsencode(item.source) for item in block],
                "target": [os.fsencode(item.target) for item in block],
                "format": [item.format for item in block],
            },
            schema=_MANIFEST,
        )
        for block in blocks
    ]


def read_photos(manifest: pa.Table, exif: ExifPolicy, truncated: bool) -> Iterator[pa.Table]:
    """Manifest rows -> rows with a decoded image, or with the reason why there is none."""
    for row in manifest.to_pylist():
        started = time.perf_counter()
        image, reason = None, None
        try:
            decoded = decode(read_file(os.fsdecode(row["source"])), exif=exif, truncated=truncated)
            image = pickle.dumps(decoded, protocol=5)
        except ImageError as error:
            reason = str(error)
        except OSError as error:
            reason = f"it cannot be read ({error.strerror or error})"
        values = {"key": row["key"], "target": row["target"], "format": row["format"], "image": image}
        yield _photo_rows([values | {"reason": reason, "seconds": time.perf_counter() - started}])


class Model:
    """One restorer in a process of its own; batches of photos in, batches of photos out."""

    def __init__(self, options: RestoreOptions, threads: int | None) -> None:
        import torch

        if threads is not None:
            # Ray allows a process as many threads as the CPUs it asked for, and locally those are logical ones.
            torch.set_num_threads(threads)
        self._restorer = options.restorer()

    def __call__(self, photos: pa.Table) -> pa.Table:
        rows = photos.to_pylist()
        started = time.perf_counter()
        images = {i: pickle.loads(row["image"]) for i, row in enumerate(rows) if row["image"] is not None}
        results = restore_each(self._restorer, [image.pixels for image in images.values()])
        share = (time.perf_counter() - started) / max(len(images), 1)
        for (i, image), result in zip(images.items(), results, strict=True):
            rows[i] |= {"seconds": rows[i]["seconds"] + share, "precision": self._restorer.precision}
            if isinstance(result, str):
                rows[i] |= {"image": None, "reason": result}
            else:
                rows[i]["image"] = pickle.dumps(with_restored(image, result), protocol=5)
        return _photo_rows(rows)


def with_restored(image: Image, restoration: Restoration) -> Image:
    """The photo with its restored pixels, and a note where it was restored in tiles."""
    restored = image.with_pixels(restoration.pixels)
    if restoration.tiling is None:
        return restored
    return replace(restored, notes=(*restored.notes, f"restored in {restoration.tiling}"))


def restore_each(restorer: RestoresPixels, images: Sequence[Pixels]) -> list[Restoration | str]:
    """The restored images, or for one that the restorer fails on the reason; the others do not suffer for it."""
    if not images:
        return []
    try:
        return list(restorer.restorations(images))
    except Exception as error:  # noqa: BLE001 - whatever the model raises, it is this batch's and no more
        if len(images) == 1:
            text = " ".join(str(error).split())[:200]
            return [f"the restorer failed on it ({type(error).__name__}: {text})"]
    return [result for image in images for result in restore_each(restorer, [image])]


def write_photos(photos: pa.Table, quality: int) -> Iterator[pa.Table]:
    """Rows with a restored image -> the files, and a status row for each."""
    for row in photos.to_pylist():
        started = time.perf_counter()
        reason, notes = row["reason"], ""
        if row["image"] is not None:
            image: Image = pickle.loads(row["image"])
            notes = "; ".join(image.notes)
            try:
                write_whole(Path(os.fsdecode(row["target"])), encode(image, row["format"], quality))
            except ImageError as error:
                reason = str(error)
            except OSError as error:
                reason = f"its result cannot be written ({error.strerror or error})"
        seconds = row["seconds"] + time.perf_counter() - started
        status = {name: row[name] for name in ("key", "precision")}
        status |= {"reason": reason, "notes": notes, "seconds": seconds}
        yield pa.Table.from_pylist([status], schema=_STATUS)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file by a rename."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read_file(path: str) -> bytes:
    """A photo's bytes; raises ImageError for what is no file of an allowed size, and OSError."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")
    check_bytes(status.st_size, DEFAULT_LIMITS)
    return Path(path).read_bytes()


def _photo_rows(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=_PHOTO)
