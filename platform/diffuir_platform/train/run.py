"""A training run, from its settings to the exported weights: what the driver does."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray.train
from mlflow.exceptions import MlflowException
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from diffuir_core import UserError, load_weights, open_weights
from diffuir_core.files import replacing

from ..data import describe, list_sources
from ..runtime import ray_session
from ..tracking import open_run
from .loop import WEIGHTS_FILE, train_worker
from .progress import WritePoints, printed_points
from .settings import OPERATIONAL, TrainConfig

RUN_FILE = "run.json"
POINTS_FILE = "points.jsonl"


def train(config: TrainConfig, overwrite: bool = False) -> Path:
    """Train, or go on with the run of that name, and return the exported weights.

    Raises `UserError` where the data, the folder or the tracker can't be used, or where the run of that name was
    begun with other settings.
    """
    sources = list_sources(config.data)
    if config.init_from is not None:
        initial = load_weights(config.init_from).variant.name
        if initial != config.variant:
            raise UserError(
                f"{config.init_from} holds a DiffUIR-{initial}, the run trains a {config.variant}"
            )
        config = config.model_copy(update={"init_from": config.init_from.absolute()})
    folder = (config.storage / config.name).resolve()
    exported = folder / WEIGHTS_FILE
    if overwrite and (folder / RUN_FILE).exists():
        shutil.rmtree(folder)
    record = _open_record(config, folder)
    if exported.exists():
        print(f"{config.name} is finished: its weights are in {exported}")
        return exported
    uri = config.tracking_uri or f"sqlite:///{config.storage.resolve() / 'mlflow.db'}"
    tracker = open_run(
        uri, config.experiment, config.name, record.get("mlflow_run"), config.storage / "mlartifacts"
    )
    settings = config.model_dump(mode="json")
    if "mlflow_run" not in record:
        _write_record(folder, {**record, "mlflow_run": tracker.run_id})
        tracker.log_params(settings)
    recipe = {"settings": computed_from(settings), "data": describe(sources)}
    if config.init_from is not None:
        # What the first weights were trained with says more than where they lay.
        recipe["init_from"] = open_weights(config.init_from).recipe
        recipe["settings"]["init_from"] = config.init_from.name
    points = folder / POINTS_FILE
    # Logical ones: loading must never wait for a CPU that a trainer has, or nothing moves.
    cpus = config.workers * (1 + config.data_tasks) + 1
    print(f"run {config.name}: {config.steps} steps in {folder}; MLflow: {uri} run {tracker.run_id}")
    try:
        with ray_session(config.address, least_cpus=cpus), printed_points(points, config.steps):
            gpus = bool(ray.cluster_resources().get("GPU")) if config.gpus is None else config.gpus
            result = TorchTrainer(
                train_worker,
                train_loop_config={
                    "config": config,
                    "sources": sources,
                    "tracker": tracker,
                    "recipe": recipe,
                },
                scaling_config=ScalingConfig(
                    num_workers=config.workers,
                    use_gpu=gpus,
                    resources_per_worker=None if gpus else {"CPU": 1},
                ),
                run_config=RunConfig(
                    name=config.name,
                    storage_path=str(config.storage.resolve()),
                    checkpoint_config=CheckpointConfig(num_to_keep=config.keep_checkpoints),
                    failure_config=FailureConfig(max_failures=config.max_failures),
                    callbacks=[WritePoints(points)],
                ),
            ).fit()
            with result.checkpoint.as_directory() as checkpoint, replacing(exported) as temporary:
                shutil.copyfile(Path(checkpoint) / WEIGHTS_FILE, temporary)
        tracker.log_file(exported, "weights")
    except BaseException as error:
        with suppress(MlflowException):
            tracker.finish(failed=True)
        sentence = user_error_within(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    tracker.finish(failed=False)
    print(f"trained {config.steps} steps: the weights are in {exported}")
    return exported


def user_error_within(error: BaseException) -> str | None:
    """The sentence of the `UserError` that a worker or a loading task ended with, None where there is none.

    Ray hands it over as text, within the tracebacks of the tasks it went through.
    """
    for text in (str(error), *map(str, getattr(error, "worker_failures", {}).values())):
        found = re.search(r"\bUserError: (.+)", text)
        if found:
            return found[1].strip()
    return None


def computed_from(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the weights depend on."""
    return {key: value for key, value in settings.items() if key not in OPERATIONAL}


def _open_record(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """What is known of the run of this name; begun anew where there is none, refused where it is another one."""
    settings = computed_from(config.model_dump(mode="json"))
    file = folder / RUN_FILE
    if not file.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_record(folder, {"settings": settings})
        except OSError as error:
            raise UserError(f"can't write to {folder} ({error.strerror}): set storage") from error
        return {"settings": settings}
    record: dict[str, Any] = json.loads(file.read_text())
    # A setting that did not exist when the run was begun had its default's effect.
    begun = {**computed_from(TrainConfig().model_dump(mode="json")), **record["settings"]}
    for key, value in settings.items():
        was = begun[key]
        if was != value:
            raise UserError(
                f"the run {config.name!r} in {folder} was begun with {key} = {json.dumps(was)}, not "
                f"{json.dumps(value)}: take another name, or --overwrite to begin anew"
            )
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    with replacing(folder / RUN_FILE) as temporary:
        temporary.write_text(json.dumps(record, indent=1))
