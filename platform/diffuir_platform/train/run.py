"""A training run, from its settings to the exported weights: what the driver does."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.validation_config import ValidationConfig as ValidationTasks

from diffuir_core import UserError, Weights, open_weights

from .. import storage
from ..data import Items, describe, fingerprint, list_sources
from ..runtime import cluster_address, ray_session
from ..storage import Lock, LockClaim, split_uri
from ..tracking import Tracker, code_state, model_card, open_run, sqlite_uri
from .checkpoints import WEIGHTS_FILE, file_of, remove_scratch_left_behind, remove_strays
from .loop import train_worker
from .progress import WritePoints, printed_points
from .record import DATA, INDEXES, RUN_FILE, computed_from, open_record, write_record
from .settings import TrainConfig
from .validation import SCORE, held_out, validate

LEAST_TASKS, MOST_TASKS = 2, 16
"""That load for a worker, unless one says how many. An H100 trains T on what twelve make."""


def train(config: TrainConfig, overwrite: bool = False, parent: str | None = None) -> str:
    """Train, or go on with the run of that name, and return where the exported weights are.

    parent: the id of the MLflow run that a new one belongs to. Raises `UserError` where the data, the storage or
    the tracker can't be used, where the run of that name was begun with other settings or other data, or where it
    is going on elsewhere.
    """
    sources = list_sources(config.data, config.tasks)
    pairs = held_out(config.validation) if config.validation.wanted else None
    initial = None if config.init_from is None else initial_weights(config.init_from, config.variant)
    if split_uri(config.storage)[0] == "memory":
        raise UserError(
            "memory:// is another one in each process: set storage to a folder or s3://bucket/path"
        )
    folder = storage.join(storage.absolute(config.storage), config.name)
    with Lock(folder, f"trains {config.name}", "take another name", "storage") as lock:
        return _train(config, overwrite, parent, folder, lock.claim, sources, pairs, initial)


def _train(
    config: TrainConfig,
    overwrite: bool,
    parent: str | None,
    folder: str,
    claim: LockClaim,
    sources: dict[str, Items],
    pairs: dict[str, Items] | None,
    initial: Weights | None,
) -> str:
    """The run itself, once nobody else is at it."""
    exported = storage.join(folder, WEIGHTS_FILE)
    # Only what is a run: a name or a storage given by mistake may be somebody's folder.
    if overwrite and storage.exists(storage.join(folder, RUN_FILE)):
        storage.remove_folder(folder)
    record = open_record(config, folder, fingerprint(sources))
    if storage.exists(exported):
        print(f"{config.name} is finished: its weights are in {exported}")
        return exported
    remove_scratch_left_behind()
    remove_strays(folder)
    tracker = _open_tracker(config, folder, record, parent)
    recipe = {
        "settings": computed_from(config.model_dump(mode="json")),
        "data": describe({task: sources[task] for task in config.tasks}),
        "fingerprints": {"index": record[INDEXES], "data": record[DATA]},
    }
    if initial is not None:
        # What the first weights were trained with says more than where they lay.
        recipe["init_from"] = initial.recipe
        recipe["settings"]["init_from"] = str(config.init_from).rpartition("/")[2]
    print(
        f"run {config.name}: {config.steps} steps in {folder}; MLflow: {tracker.address} run {tracker.run_id}"
    )
    with _closing(tracker):
        with (
            ray_session(config.address, least_cpus=cpus_of(config), data=True),
            printed_points(config.steps) as points,
        ):
            setup = {
                "config": config,
                "sources": ray.put(sources),
                "initial": None if initial is None else ray.put(initial.model.state_dict()),
                "tracker": tracker,
                "recipe": recipe,
                "data_tasks": loading_tasks(config),
                "cpus_of_a_task": 0 if _brings_its_room(config) else 1,
            }
            _say_if_it_waits(config)
            result = _trainer(config, setup, WritePoints(points, claim), pairs and ray.put(pairs)).fit()
        _register(result, tracker, config)
    # Last of all: who finds it takes the run for finished.
    with file_of(result.checkpoint, WEIGHTS_FILE) as weights, storage.writing(exported) as temporary:
        shutil.copyfile(weights, temporary)
    print(f"trained {config.steps} steps: the weights are in {exported}")
    return exported


def initial_weights(uri: str, variant: str) -> Weights:
    """The weights to start from; raises `UserError` where they are not of that variant."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / uri.rpartition("/")[2]
        local.write_bytes(storage.read_bytes(uri))
        weights = open_weights(local)
    found = weights.model.variant.name
    if found != variant:
        raise UserError(f"{uri} holds a DiffUIR-{found}, the run trains a {variant}")
    return weights


def cpus_of(config: TrainConfig, workers: int | None = None) -> int:
    """Logical CPUs that a run must find: loading must never wait for one that a trainer has, or nothing moves.

    workers: None for the most that there can be.
    """
    return (workers or config.most_workers) * (1 + loading_tasks(config)) + 1 + int(config.validation.wanted)


def loading_tasks(config: TrainConfig) -> int:
    """Tasks that load for each worker; the fewest that there may be where Ray does not run yet."""
    there = ray.cluster_resources() if ray.is_initialized() else {}
    if config.data_tasks is not None:
        return config.data_tasks
    if config.gpus is False or not there.get("GPU"):
        return LEAST_TASKS
    share = int(there["CPU"] // there["GPU"])
    return min(MOST_TASKS, max(LEAST_TASKS, share - 3))  # the trainer, its controller and a validation


def _uses_gpus(config: TrainConfig) -> bool:
    return bool(ray.cluster_resources().get("GPU")) if config.gpus is None else config.gpus


def _brings_its_room(config: TrainConfig) -> bool:
    """Whether a trainer's CPUs are its loading's too, which asks for none.

    An elastic run takes as many trainers as there is room for: on CPUs they would leave none for loading. Others
    load on any node that has a CPU to spare.
    """
    return config.max_workers is not None and not _uses_gpus(config)


def _say_if_it_waits(config: TrainConfig) -> None:
    """A cluster that grows with what is asked of it may be smaller at first; one that doesn't would keep quiet.

    Raises `UserError` where nothing can grow.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    wanted = config.workers * int(config.gpus is True) + config.validation.gpus
    if wanted > gpus:
        if cluster_address(config.address) is None:
            raise UserError(
                f"the run takes {wanted:g} GPUs and this machine has {gpus:g}: leave out gpus and validation.gpus"
            )
        print(f"the cluster has {gpus:g} GPUs and the run takes {wanted:g}: it waits for more", flush=True)
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    if _brings_its_room(config):
        each = 1 + loading_tasks(config)
        fits = sum(count // each for count in cpus) >= config.workers
        taken = f"{config.workers} times {each} on a node"
    else:
        fits = sum(cpus) >= cpus_of(config, config.workers)
        taken = str(cpus_of(config, config.workers))
    if not fits:
        print(f"the cluster has {sum(cpus):g} CPUs and the run takes {taken}: it waits for more", flush=True)


def tracking_place(config: TrainConfig) -> tuple[str, Path]:
    """The tracker's address, and the folder for the files of a tracker that is a database."""
    scheme, _, path = split_uri(config.storage)
    place = Path(path if scheme == "file" else "runs")
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"MLflow's files can't be kept in {place.resolve()} ({error.strerror}): set tracking_uri"
            ) from error
        uri = sqlite_uri(place.resolve() / "mlflow.db")
    return uri, place / "mlartifacts"


def _open_tracker(config: TrainConfig, folder: str, record: dict[str, Any], parent: str | None) -> Tracker:
    uri, artifacts = tracking_place(config)
    known = record.get("mlflow_run")
    tracker = open_run(
        uri,
        config.experiment,
        config.name,
        known,
        artifacts,
        parent=parent,
        index=",".join(record[INDEXES]) or None,
        data=record[DATA],
    )
    if known is None:
        write_record(folder, {**record, "mlflow_run": tracker.run_id})
        tracker.log_params(config.model_dump(mode="json"))
    return tracker


@contextmanager
def _closing(tracker: Tracker) -> Iterator[None]:
    """The end of the run in MLflow; the `UserError` that a worker ended with is this process's too."""
    try:
        yield
    except BaseException as error:
        tracker.finish(failed=True)
        sentence = user_error_within(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    tracker.finish(failed=False)


def _trainer(
    config: TrainConfig, setup: dict[str, Any], points: WritePoints, pairs: Any | None
) -> TorchTrainer:
    """pairs: a reference to what the checkpoints are validated on."""
    gpus, brings_room = _uses_gpus(config), _brings_its_room(config)
    file_system, path = storage.arrow_file_system(storage.absolute(config.storage))
    validation = None
    if pairs is not None:
        validation = ValidationTasks(
            partial(validate, pairs=pairs, tracker=setup["tracker"]),
            ray_remote_kwargs={"num_cpus": setup["cpus_of_a_task"], "num_gpus": config.validation.gpus},
        )
    return TorchTrainer(
        train_worker,
        train_loop_config=setup,
        scaling_config=ScalingConfig(
            num_workers=config.workers
            if config.max_workers is None
            else (config.workers, config.max_workers),
            use_gpu=gpus,
            resources_per_worker=None if gpus else {"CPU": 1 + brings_room * setup["data_tasks"]},
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=path,
            storage_filesystem=file_system,
            checkpoint_config=CheckpointConfig(
                num_to_keep=config.keep_checkpoints,
                checkpoint_score_attribute=SCORE if validation else None,
                checkpoint_score_order="max",
            ),
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=[points],
        ),
        validation_config=validation,
    )


def _register(result: ray.train.Result, tracker: Tracker, config: TrainConfig) -> None:
    """The averaged weights of the last checkpoint, in MLflow's registry, with their card."""
    with file_of(result.checkpoint, WEIGHTS_FILE) as weights:
        figures = {key: value for key, value in result.metrics.items() if key.startswith(("psnr", "ssim"))}
        title = f"DiffUIR-{config.variant}, {config.name}"
        validated = {"held-out pairs": figures} if figures else None
        card = model_card(title, open_weights(weights).recipe, validated, code_state())
        name = config.registered_model or f"diffuir-{config.variant.lower()}"
        tracker.log_file(weights, "weights")
        tracker.register(weights, card, name, re.sub(r"[^A-Za-z0-9_-]", "-", f"run-{config.name}"))


def user_error_within(error: BaseException) -> str | None:
    """The sentence of the `UserError` that a run ended with, None where there is none.

    The controller's comes as it is; a worker's or a loading task's as text, within tracebacks.
    """
    failure = getattr(error, "controller_failure", None)
    if isinstance(failure, UserError):
        return str(failure)
    texts = (str(error), *map(str, getattr(error, "worker_failures", {}).values()))
    for text in texts:
        found = re.search(rf"\b(?:{'|'.join(_kinds(UserError))}): (.+)", text)
        if found:
            return found[1].strip()
    if any(os.strerror(errno.ENOSPC) in text for text in texts):
        return (
            "a disk is full, that of the run's folder or of the temporary files: make room, and the same command "
            "goes on"
        )
    return None


def _kinds(error: type[BaseException]) -> Iterator[str]:
    """The names of a kind of error and of those that are one."""
    yield error.__name__
    for kind in error.__subclasses__():
        yield from _kinds(kind)
