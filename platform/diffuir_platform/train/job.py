"""A training run as a job of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import yaml

from diffuir_core import UserError

from ..runtime.submission import Job, check_shareable, is_loopback, passed_on, submit
from ..tracking import submitted_state
from .settings import TrainConfig

CONFIG_FILE = "train.yaml"


def submit_training(config: TrainConfig, overwrite: bool, address: str) -> int:
    """Train on the cluster whose job server is at `address`, http://HEAD:8265, and return the command's exit code.

    Raises `UserError` where nothing can come of it: settings that mean this machine only, a server that does not
    answer or does not let us in, a run of that name with other settings that is still going on.
    """
    return submit(training_job(config, overwrite, address), address)


def training_job(config: TrainConfig, overwrite: bool, address: str) -> Job:
    """The job that trains `config`; raises `UserError` for settings that mean this machine only."""
    for key, place in _places(config):
        if "://" not in place and not place.startswith("/"):
            raise UserError(
                f"{key} = {place} is a path of this folder, which a cluster does not have: give s3://bucket/path "
                "or an absolute path that all its nodes share"
            )
    tracking_uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if "://" in config.storage and not tracking_uri.startswith(("http://", "https://")):
        raise UserError(
            "no MLflow server is named, and curves that the job kept beside it would be lost: set tracking_uri or "
            "MLFLOW_TRACKING_URI to the server's http:// address"
        )
    check_shareable("tracking_uri", tracking_uri)
    if is_loopback(tracking_uri) and not is_loopback(address):
        raise UserError(
            f"tracking_uri = {tracking_uri} is this machine's own, which the cluster does not reach: set it to "
            "the address that the nodes know"
        )
    # The job's own cluster is the one to join.
    settings = config.model_copy(update={"address": None, "tracking_uri": tracking_uri})
    return Job(
        name=f"train-{config.name}",
        arguments=("train", CONFIG_FILE, *(["--overwrite"] if overwrite else [])),
        files={CONFIG_FILE: yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)},
        environment={**passed_on(address), **submitted_state()},
    )


def _places(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """(setting, local path or URI) of everything that the job reads or writes."""
    yield "storage", config.storage
    if config.init_from is not None:
        yield "init_from", config.init_from
    for uri in config.data.index:
        yield "data.index", uri
    for uri in config.validation.index:
        yield "validation.index", uri
    for path in config.data.clean:
        yield "data.clean", str(path)
    for task, folders in config.data.pairs.items():
        yield from ((f"data.pairs.{task}", str(folder.path)) for folder in folders)
    for task, paths in config.validation.pairs.items():
        yield from ((f"validation.pairs.{task}", str(path)) for path in paths)
