"""Trained weights in MLflow's model registry: registered with their model card, and fetched back.

A version is not a pickled model but a folder of the run's artifacts, `runs:/RUN_ID/registered/SHA256`, with the
weights and their card, README.md. The checksum in the name keeps other weights from ever taking their place.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from diffuir_core import UserError

from .connection import connect, connection_errors, reason, unusable_tracker, without_password

CHECKSUM_TAG = "diffuir.sha256"
"""Tag of a version with the SHA-256 of its weights file."""
NEWEST = "latest"
"""MLflow's own name for the newest version; an alias must not have it."""
CARD_FILE = "README.md"
LONGEST_DESCRIPTION = 5000
"""Most characters of a version's description that every database takes."""


def check_name(name: str, alias: str | None) -> None:
    """Raise `UserError` where MLflow does not take the name or the alias of a registered model."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise UserError(f"{name!r} can't name a registered model: use letters, digits, '.', '_' and '-'")
    if alias is not None and (not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", alias) or _is_number(alias)):
        raise UserError(
            f"{alias!r} can't be the alias of a registered model: use letters, digits, '_' and '-', and no number"
        )


def register_version(client: Any, run_id: str, record: dict[str, Any]) -> None:
    """Make a version of the registered model, and set its alias; a version that exists is not made again.

    record: `name`, `alias`, `folder`, `checksum` and `description`, as `Tracker.register` writes them.
    """
    from mlflow.exceptions import MlflowException

    name, alias = record["name"], record["alias"]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = f"runs:/{run_id}/{record['folder']}"
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    version = next((v.version for v in versions if v.name == name and v.source == source), None)
    if version is None:
        version = client.create_model_version(
            name,
            source,
            run_id,
            tags={CHECKSUM_TAG: record["checksum"]},
            description=record["description"],
        ).version
    if alias is not None and alias.lower() != NEWEST:
        client.set_registered_model_alias(name, alias, str(version))


def fetch_registered(uri: str, name: str, version: str = NEWEST, cache: Path | None = None) -> Path:
    """Return the weights file of a registered model, downloaded once and kept in `cache`.

    version: an alias, a number, or "latest". cache: None for diffuir/models in the user's cache folder. Raises
    `UserError` where the tracker can't be used, has no such version, or gives other bytes than were registered.
    """
    from mlflow.artifacts import download_artifacts

    wanted = _model_uri(name, version)
    try:
        client = connect(uri)
        found = _version(client, uri, name, version)
        checksum = found.tags.get(CHECKSUM_TAG, "")
        if not re.fullmatch("[0-9a-f]{64}", checksum):  # registered by another program
            checksum = ""
        # The number would not do: every tracker has a version 1.
        identity = (
            checksum or hashlib.sha256(f"{found.source} {found.creation_timestamp}".encode()).hexdigest()
        )
        target = (cache or _default_cache()) / identity
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
                fetched = download_artifacts(
                    artifact_uri=found.source, dst_path=folder, tracking_uri=client.tracking_uri
                )
                _check_checksum(_weights_in(Path(fetched), wanted), checksum, wanted)
                try:
                    Path(fetched).rename(target)
                except OSError:
                    if not target.exists():  # another process was faster
                        raise
        return _weights_in(target, wanted)
    except connection_errors() as error:
        raise unusable_tracker(uri, error, "check its address, and that it has the model's files") from None


def pinned_version(uri: str, name: str, version: str = NEWEST) -> str:
    """Return the number of the version that an alias or "latest" means now; raises as `fetch_registered` does."""
    try:
        return str(_version(connect(uri), uri, name, version).version)
    except connection_errors() as error:
        raise unusable_tracker(uri, error, "check its address") from None


def _model_uri(name: str, version: str) -> str:
    by_number = _is_number(version) or version == NEWEST
    return f"models:/{name}/{version}" if by_number else f"models:/{name}@{version}"


def _version(client: Any, uri: str, name: str, version: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        if _is_number(version):
            return client.get_model_version(name, version.lstrip("vV"))
        return client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"there is no {_model_uri(name, version)} at {without_password(uri)} ({reason(error)}): look in its "
            "registry for the name"
        ) from None


def checksum_of(file: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _weights_in(folder: Path, wanted: str) -> Path:
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(
            f"{wanted} holds {len(files)} safetensors files, not one: name a model that DiffUIR has registered"
        )
    return files[0]


def _check_checksum(file: Path, checksum: str, wanted: str) -> None:
    if checksum and checksum_of(file) != checksum:
        raise UserError(
            f"{wanted} is not what was registered (its SHA-256 differs): register the weights again"
        )


def _is_number(version: str) -> bool:
    return re.fullmatch(r"[vV]?\d+", version) is not None


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffuir" / "models"
