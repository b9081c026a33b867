"""A training run as a job of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

from diffuir_core import UserError

from ..config import to_yaml
from ..runtime.submission import Job, check_shareable, check_shared_paths, is_loopback, passed_on, submit
from ..tracking import submitted_state
from .settings import TrainConfig

CONFIG_FILE = "train.yaml"
"""Name of the job's config in the folder that it starts in."""


def submit_training(config: TrainConfig, overwrite: bool, address: str) -> int:
    """Train on the cluster whose job server is at `address`, http://HEAD:8265, and return the command's exit code.

    Raises `UserError` where this cannot work: settings that mean this machine only, a server that does not answer
    or refuses us, a run of that name with other settings that is still running.
    """
    return submit(training_job(config, overwrite, address), address)


def training_job(config: TrainConfig, overwrite: bool, address: str) -> Job:
    """The job that trains `config`; raises `UserError` for settings that mean this machine only."""
    return Job(
        name=f"train-{config.name}",
        arguments=("train", CONFIG_FILE, *(["--overwrite"] if overwrite else [])),
        files={CONFIG_FILE: to_yaml(settings_on_cluster(config, address))},
        environment=training_environment(address),
    )


def training_environment(address: str) -> dict[str, str]:
    """The environment of a job that trains on the cluster at `address`."""
    return {**passed_on(address), **submitted_state()}


def settings_on_cluster(config: TrainConfig, address: str) -> TrainConfig:
    """The settings as a job has them; raises `UserError` for settings that mean this machine only."""
    check_shared_paths(_places(config))
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
    # A job joins the cluster that runs it.
    return config.model_copy(update={"address": None, "tracking_uri": tracking_uri})


def _places(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """(setting, path or URI) of everything that the job reads or writes."""
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
