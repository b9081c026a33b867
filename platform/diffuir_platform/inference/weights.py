"""The weights of a restore, wherever they lie: fetched and checked once, by the driver."""

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
    """A weights file's bytes. Inside Ray they are sent to each node once."""

    name: str
    """Of the file; its ending tells a release's."""
    data: bytes | None
    """None for those that ship, which every node has."""
    sha256: str

    @contextmanager
    def as_file(self) -> Iterator[Path | None]:
        """A file of them for as long as the block lasts; None for those that ship."""
        if self.data is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
            file = Path(folder) / self.name
            file.write_bytes(self.data)
            yield file


def fetch_weights(named: str | None) -> FetchedWeights:
    """The weights that a setting names (`FetchedWeights` says how); raises `UserError` for what can't be used."""
    if named is None:
        return FetchedWeights(PRETRAINED.name, None, _sha256(PRETRAINED.read_bytes()))
    if named.startswith("models:/"):
        file = _registered(named)
    elif "://" in named:
        with tempfile.TemporaryDirectory(prefix="diffuir-") as folder:
            file = Path(folder) / storage.absolute(named).rpartition("/")[2]
            file.write_bytes(storage.read_bytes(named))
            return _checked(file)
    else:
        file = Path(named)
    return _checked(file)


def _checked(file: Path) -> FetchedWeights:
    diffuir_core.open_weights(file)
    data = file.read_bytes()
    return FetchedWeights(file.name, data, _sha256(data))


def registered_name(named: str) -> tuple[str, str, str]:
    """(MLflow's address, name, alias or version) of models:/NAME@ALIAS or models:/NAME/VERSION."""
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))?", named)
    if found is None:
        raise UserError(
            f"{named} names no registered model: write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    tracker = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracker:
        raise UserError(f"no MLflow server is named to ask for {named}: set MLFLOW_TRACKING_URI")
    return tracker, found[1], found[2] or found[3] or "latest"


def pinned(named: str | None) -> str | None:
    """The one way to name these weights that stays the same: a version for an alias, an absolute path."""
    if named is None or "://" in named:
        return named
    if named.startswith("models:/"):
        from ..tracking.registry import pinned_version

        tracker, name, version = registered_name(named)
        return f"models:/{name}/{pinned_version(tracker, name, version)}"
    return storage.absolute(os.fspath(named))


def _registered(named: str) -> Path:
    from ..tracking.registry import fetch_registered

    return fetch_registered(*registered_name(named))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
