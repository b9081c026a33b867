"""One call of `restore`, of one photo or of a collection."""

from __future__ import annotations

import os

from diffuir_core.errors import UserError

from .local import SECONDS_WITHOUT_RAY, RestorerFactory
from .progress import ProgressFile
from .refusals import check_places, is_single_photo
from .settings import RestoreOptions
from .single_photo import restore_one
from .summary import Summary


def restore(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: RestoreOptions | None = None,
    *,
    restart: bool = False,
    retry_failed: bool = False,
    restorer: RestorerFactory | None = None,
    progress_file: str | None = None,
    seconds_without_ray: float = SECONDS_WITHOUT_RAY,
) -> Summary:
    """Restore the photos at `source` into `target`, with progress on stderr; returns the summary of the run.

    For more than a single photo, a ledger is kept in `_diffuir/` of `target`, and the same call again restores
    only what is not done yet. restart: remove the results of an earlier run first. retry_failed: restore only the
    inputs that failed before. restorer: makes a restorer, or a function of a list of images, from the weights
    file, in place of the one that `options` describe. Raises `UserError` before any work begins for everything
    that the user can put right; photos that fail are in the summary and stop nothing. progress_file: URI of a JSON
    file of `Counts` that is kept up to date during the run; it also gets the sentence of a `UserError` that ends
    the run.

    Photos are restored one by one in a process beside this one until more work is left than `seconds_without_ray`
    for each GPU, by the rate so far; then Ray is started. It is used at once on a cluster, for more than one of
    `models`, and where this process has started it already.
    """
    options = options or RestoreOptions()
    source, target = os.fspath(source), os.fspath(target)
    check_places(source, target)
    if restorer is not None and options.restorer is not None:
        raise UserError("a restorer is given twice, as restorer and in the options: leave one out")
    if restart and retry_failed:
        raise UserError(
            "a restart forgets what failed before, so there is nothing to retry: ask for one of them"
        )
    with ProgressFile(progress_file) as written:
        if is_single_photo(source):
            return restore_one(source, target, options, restorer, written)
        # The ledger's libraries are not needed for one photo.
        from .collection import restore_collection

        return restore_collection(
            source,
            target,
            options,
            restart=restart,
            retry_failed=retry_failed,
            make=restorer,
            progress_file=written,
            seconds_without_ray=seconds_without_ray,
        )
