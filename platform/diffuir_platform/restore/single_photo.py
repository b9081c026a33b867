"""A restore of one photo, without a ledger."""

from __future__ import annotations

import os

from diffuir_core.errors import UserError

from .. import storage
from ..inference import fetch_model
from .inputs import Item, check_output, is_same_place
from .local import LocalRestorer, RestorerFactory, prepared
from .names import result_format, result_name
from .photo_progress import PhotoProgress
from .progress import ProgressFile, single_photo_counts
from .refusals import format_of_result
from .settings import RestoreOptions
from .summary import Summary
from .worker_process import begun_process


def single_item(source: str, target: str, format: str | None, overwrite: bool = False) -> tuple[Item, str]:
    """Return the item for the photo `source`, and the folder that its result goes to.

    The result is written to `target` itself, in the format of its ending, unless `target` is a folder or ends in a
    slash. Raises `UserError` where the result would replace the photo or, without `overwrite`, another file, and
    where the ending of `target` is that of no format or of another one than `format`.
    """
    format = format.upper() if format else None
    name = storage.absolute(source).rpartition("/")[2]
    if target.endswith(("/", os.sep)) or storage.is_folder(target):
        folder, result = storage.absolute(target), result_name(format, name)
        shown, format = f"{target.rstrip('/')}/{result}", result_format(format, name)
    else:
        shown, format = target, format_of_result(target, format)
        folder, _, result = storage.absolute(target).rpartition("/")
    paths = (storage.absolute(source), f"{folder}/{result}")
    if paths[0] == paths[1] or is_same_place(*paths):
        raise UserError(f"{source} would be replaced by its own result: choose another OUT")
    if not overwrite and storage.exists(paths[1]):
        raise UserError(f"{shown} is there already: choose another OUT, or give --overwrite to replace it")
    return Item(name, paths[0], result, format), folder or "/"


def restore_one(
    source: str,
    target: str,
    options: RestoreOptions,
    make: RestorerFactory | None,
    progress_file: ProgressFile,
) -> Summary:
    """Restore one photo in a process beside this one, without a ledger."""
    item, folder = single_item(source, target, options.format, options.overwrite)
    check_output(folder)
    summary = Summary(target)
    progress_file.follow(lambda: single_photo_counts(summary))
    with begun_process() as process, PhotoProgress(item.key) as progress:
        weights = fetch_model(options.restorer, options.weights, check=False)  # its process checks it
        prepare = prepared(make, weights, options, folder, is_collection=False)
        local = LocalRestorer(process, prepare, progress.update)
        photo = local.restored(item).photo
    if photo.unreachable:
        raise UserError(str(photo.reason))
    if photo.reason is not None and photo.format is not None and photo.precision is None:
        # It can be read, but not be written in the format that was asked for.
        raise UserError(f"{item.key}: {photo.reason}")
    summary.add_photo(photo)
    summary.finish()
    if photo.reason is not None:
        progress_file.fail(f"{item.key}: {photo.reason}")
    return summary
