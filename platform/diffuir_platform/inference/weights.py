"""Weights by name: the one way in which restore, train's `init_from`, sweep, evaluate and serve load them.

    a name                                      the weights it stands for
    none                                        the shipped ones
    model.safetensors, model-300.pt             a file: ours, or a release's
    s3://bucket/model.safetensors               a file in a store
    models:/NAME@ALIAS, models:/NAME/VERSION    a registered model of the MLflow server at MLFLOW_TRACKING_URI, or
                                                of a training run's own; models:/NAME for its latest version

They are fetched and checked once, in the process that starts the work (the driver, or a model's replica).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import diffuir_core
from diffuir_core.errors import UserError
from diffuir_core.pretrained import PRETRAINED

from .. import storage


@dataclass(frozen=True)
class FetchedWeights:
    """The bytes of a weights file. As an object in Ray's store they are sent to each node once."""

    name: str
    """Name of the file; its ending tells a release (.pt) from our own (.safetensors)."""
    data: bytes | None
    """Content of the file; None for the shipped weights, which are installed on every node, and for
    a restorer that needs no file."""
    sha256: str
    """SHA-256 of the content, 64 hexadecimal digits; "none" for another restorer that needs no file."""

    @contextmanager
    def as_file(self) -> Iterator[Path | None]:
        """Write them to a temporary file that exists inside the block; None for the shipped weights."""
        if self.data is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
            file = Path(folder) / self.name
            file.write_bytes(self.data)
            yield file

    def open(self) -> diffuir_core.Weights:
        """Load the network with its schedule, recipe and preprocessing, as `diffuir_core.open_weights` does."""
        with self.as_file() as file:
            return diffuir_core.open_weights(file)


def fetch_weights(named: str | None, check: bool = True, tracker: str | None = None) -> FetchedWeights:
    """Fetch the weights that a setting names, as the module's table says; None for the shipped weights.

    check: whether to load them, which imports torch. tracker: address of the MLflow server, None for that of
    MLFLOW_TRACKING_URI. Raises `UserError` where there are none of that name, where
    the store or the MLflow server does not answer and, with `check`, for a file that is damaged or not weights of
    DiffUIR.
    """
    if named is None:
        return FetchedWeights(PRETRAINED.name, None, _sha256(PRETRAINED.read_bytes()))
    fetched = fetch_file(named, tracker)
    if check:
        with fetched.as_file() as file:
            try:
                diffuir_core.open_weights(file)
            except UserError as error:
                raise UserError(str(error).replace(str(file), named)) from error
    return fetched


def fetch_file(named: str, tracker: str | None = None) -> FetchedWeights:
    """Fetch a file of weights of any restorer, unchecked; arguments and errors are those of `fetch_weights`."""
    if "://" in named:
        uri = storage.absolute(named)
        data, name = storage.read_bytes(uri), uri.rpartition("/")[2]
    else:
        file = _fetch_from_registry(named, tracker) if named.startswith("models:/") else Path(named)
        if not file.is_file():
            raise UserError(f"there is no weights file at {named}: name a file, a URI or a registered model")
        data, name = storage.read_bytes(storage.absolute(str(file))), file.name
    return FetchedWeights(name, data, _sha256(data))


def registered_name(named: str, tracker: str | None = None) -> tuple[str, str, str]:
    """Split models:/NAME@ALIAS or models:/NAME/VERSION into (MLflow's address, name, alias or version).

    tracker: as for `fetch_weights`. Raises `UserError` for another form, and where no address is known.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))?", named)
    if found is None:
        raise UserError(
            f"{named} does not name a registered model: write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    tracker = tracker or os.environ.get("MLFLOW_TRACKING_URI")
    if not tracker:
        raise UserError(f"{named} needs an MLflow server, and none is named: set MLFLOW_TRACKING_URI")
    return tracker, found[1], found[2] or found[3] or "latest"


def pinned(named: str | None) -> str | None:
    """Return a lasting name of the same weights: the version of an alias, the absolute path of a relative one.

    Raises `UserError` as `registered_name` does, and where the MLflow server has no such model.
    """
    if named is None or "://" in named:
        return named
    if named.startswith("models:/"):
        from ..tracking.registry import pinned_version

        tracker, name, version = registered_name(named)
        return f"models:/{name}/{pinned_version(tracker, name, version)}"
    return storage.absolute(os.fspath(named))


def _fetch_from_registry(named: str, tracker: str | None) -> Path:
    from ..tracking.registry import fetch_registered

    return fetch_registered(*registered_name(named, tracker))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
