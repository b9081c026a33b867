"""The driver of a training run: from the settings to the exported and registered weights."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train import ValidationConfig as ValidationTasks
from ray.train.torch import TorchTrainer

from diffuir_core import UserError, Weights, open_weights

from .. import storage
from ..data import Items, check_apart, describe, file_versions, fingerprint, list_sources, preprocessing
from ..inference import fetch_weights
from ..runtime import cluster_address, ray_session
from ..storage import Lock, LockClaim, split_uri
from ..tracking import Tracker, code_state, model_card, open_run, sqlite_uri
from .checkpoints import SNAPSHOT_FILE, WEIGHTS_FILE, file_of, remove_run, remove_scratch_left_behind
from .loop import WorkerSetup, train_worker
from .progress import ReportMonitor, printed_progress
from .record import DATA, INDEXES, INITIAL, RUN_FILE, open_record, result_settings, write_record
from .resuming import prepare_checkpoints
from .settings import TrainConfig
from .stopping import StoppedEarly, StopRequest, StopSign, fitted, stop_request
from .validation import SCORE, held_out, validate

FULL_DISK = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")
"""Parts of the errors in which Python, Arrow, safetensors and SQLite say that a disk is full."""

MANY = 10_000
"""Photos from which a line says that their files are looked at, which a store may take minutes for."""

LEAST_TASKS, MOST_TASKS = 2, 16
"""Bounds of the loading tasks per worker where `data_tasks` does not set them; twelve keep an H100 busy with
variant T."""


def train(config: TrainConfig, overwrite: bool = False, parent: str | None = None) -> str:
    """Train, or resume the run of that name, and return the URI of the exported weights.

    overwrite: whether to remove a run of that name first. parent: the id of the MLflow run that a new one belongs
    to. Raises `UserError` where the data, the storage, the tracker or the weights to start from can't be used,
    where the run of that name was begun with other settings or data, and where another process is training it.
    """
    sources = list_sources(config.data, config.tasks)
    check_apart(config.data, sources)
    pairs = held_out(config.validation, config.data.max_pixels) if config.validation.wanted else None
    if split_uri(config.storage)[0] == "memory":
        raise UserError(
            "memory:// is another one in each process: set storage to a folder or s3://bucket/path"
        )
    folder = storage.join(storage.absolute(config.storage), config.name)
    with Lock(folder, f"trains {config.name}", "take another name", "storage") as lock:
        return _train(config, overwrite, parent, folder, lock.claim, sources, pairs)


def _train(
    config: TrainConfig,
    overwrite: bool,
    parent: str | None,
    folder: str,
    claim: LockClaim,
    sources: dict[str, Items],
    pairs: dict[str, Items] | None,
) -> str:
    """Train while this process holds the lock of the run's folder."""
    exported = storage.join(folder, WEIGHTS_FILE)
    initial = None
    if overwrite and config.init_from is not None:  # before anything is removed
        initial = initial_weights(config.init_from, config, sources)
    # Nothing but a run is removed: after a typing error, the folder may be somebody's own.
    if overwrite and storage.exists(storage.join(folder, RUN_FILE)):
        remove_run(folder, RUN_FILE)
    count = max(map(len, sources.values()))
    if count >= MANY:
        print(f"looking at the files of {count:,} photos", flush=True)
    record = open_record(config, folder, fingerprint(sources), file_versions(sources))
    if storage.exists(exported):
        print(f"{config.name} is finished: its weights are in {exported}")
        return exported
    remove_scratch_left_behind()
    wrong = prepare_checkpoints(folder)
    has_checkpoint = storage.exists(storage.join(folder, SNAPSHOT_FILE))
    if wrong:
        goes_on = "goes on from the newest checkpoint that can be loaded" if has_checkpoint else "begins anew"
        print(f"the run {goes_on}: {'; '.join(wrong)}")
    is_needed = not (has_checkpoint and INITIAL in record)
    if config.init_from is not None and initial is None and is_needed:
        initial = initial_weights(config.init_from, config, sources)
    if initial is not None:
        record[INITIAL] = initial.recipe
        write_record(folder, record)
    tracker = _open_tracker(config, folder, record, parent)
    recipe = {
        "settings": result_settings(config.model_dump(mode="json")),
        "data": describe({task: sources[task] for task in config.tasks}),
        "fingerprints": {"index": record[INDEXES], "data": record[DATA]},
    }
    if config.init_from is not None:
        # Exported weights tell how the first ones were trained, and not where they lay on somebody's machine.
        recipe["init_from"] = record[INITIAL]
        named = config.init_from
        recipe["settings"]["init_from"] = named if named.startswith("models:/") else named.rpartition("/")[2]
    print(
        f"run {config.name}: {config.steps} steps in {folder}; MLflow: {tracker.address} run {tracker.run_id}"
    )
    with _finished_in(tracker):
        if not ray.is_initialized():
            print("starting Ray, then the workers", flush=True)
        with (
            ray_session(config.address, least_cpus=required_cpus(config), data=True),
            printed_progress(config.steps) as progress,
        ):
            sign = StopSign()
            setup = WorkerSetup(
                config=config,
                sources=ray.put(sources),
                initial=None if initial is None else ray.put(initial.model.state_dict()),
                tracker=tracker,
                recipe=recipe,
                data_tasks=loading_tasks(config),
                cpus_of_a_task=0 if _loads_on_worker_cpus(config) else 1,
                progress=progress,
                stop=sign,
            )
            _check_room(config)
            trainer = _trainer(setup, ReportMonitor(progress, claim), pairs and ray.put(pairs))
            with stop_request(sign, config.stop_after) as request:
                result = fitted(trainer)
            _check_finished(config, result, request)
        _register(result, tracker, config)
    # Last of all: a run whose folder has this file counts as finished.
    with file_of(result.checkpoint, WEIGHTS_FILE) as weights, storage.writing(exported) as temporary:
        shutil.copyfile(weights, temporary)
    print(f"trained {config.steps} steps: the weights are in {exported}")
    return exported


def _check_finished(config: TrainConfig, result: ray.train.Result, request: StopRequest) -> None:
    """Raise `StoppedEarly` where the run ended before its last step, because it was asked to."""
    with file_of(result.checkpoint, WEIGHTS_FILE) as weights:
        steps = open_weights(weights).recipe["steps_done"]
    if steps < config.steps:
        raise StoppedEarly(
            f"stopped {request.reason} at step {steps:,} of {config.steps:,}: the same command goes on from there",
            request.exit_code,
        )


def initial_weights(named: str, config: TrainConfig, sources: Mapping[str, Items]) -> Weights:
    """Load the weights to start from, named as `fetch_weights` takes them, from the registry of the run's tracker.

    sources: the items of each task. A line is printed for each task whose photos the weights were trained to see
    equalised and the run's are not, or the other way round: the run unlearns that. Raises `UserError` as
    `fetch_weights` does, and where they are of another variant, schedule or condition: the network would start
    with answers to another question.
    """
    tracker = tracking_location(config)[0] if named.startswith("models:/") else None
    weights = fetch_weights(named, tracker=tracker).open()
    of_weights = {
        "variant": weights.model.variant.name,
        "delta_end": weights.schedule.delta_end,
        "condition": weights.schedule.condition,
    }
    for key, found in of_weights.items():
        wanted = getattr(config, key)
        if found != wanted:
            raise UserError(
                f"{named} was trained with {key} = {found}, the run has {wanted}: set {key} = {found}, or another "
                "init_from"
            )
    prepared = preprocessing({task: sources[task] for task in config.tasks})
    known = {**weights.recipe.get("data", {}), **weights.preprocessing}  # a release does not say what it saw
    for task in config.tasks:
        if task in known and weights.preprocessing.get(task) != prepared.get(task):
            theirs, ours = ("", "not ") if task in weights.preprocessing else ("un", "")
            print(
                f"{named} was trained on {task} photos with {theirs}equalised histograms, and the run's are "
                f"{ours}equalised: it learns anew how they look (diffuir index has --equalise)"
            )
    return weights


def required_cpus(config: TrainConfig, workers: int | None = None) -> int:
    """Logical CPUs that a run takes, with those of its loading tasks: without them loading waits for ever.

    workers: how many; None for the most that there can be.
    """
    return (workers or config.most_workers) * (1 + loading_tasks(config)) + 1 + int(config.validation.wanted)


def loading_tasks(config: TrainConfig) -> int:
    """Number of loading tasks per worker; `LEAST_TASKS` while Ray is not running."""
    cluster = ray.cluster_resources() if ray.is_initialized() else {}
    if config.data_tasks is not None:
        return config.data_tasks
    if config.gpus is False or not cluster.get("GPU"):
        return LEAST_TASKS
    share = int(cluster["CPU"] // cluster["GPU"])
    return min(MOST_TASKS, max(LEAST_TASKS, share - 3))  # the trainer, its controller and a validation


def _uses_gpus(config: TrainConfig) -> bool:
    return bool(ray.cluster_resources().get("GPU")) if config.gpus is None else config.gpus


def _loads_on_worker_cpus(config: TrainConfig) -> bool:
    """Whether each worker reserves CPUs for its loading tasks, which then ask for none themselves.

    An elastic run on CPUs does: it starts as many workers as fit, and they would leave no CPU for loading. In
    other runs the tasks load on any node with a free CPU.
    """
    return config.max_workers is not None and not _uses_gpus(config)


def _check_room(config: TrainConfig) -> None:
    """Print what the run waits for where the cluster is too small at present; it may grow on demand.

    Raises `UserError` where it can't grow: Ray Train would wait without a word.
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
    if _loads_on_worker_cpus(config):
        each = 1 + loading_tasks(config)
        fits = sum(count // each for count in cpus) >= config.workers
        taken = f"{config.workers} times {each} on a node"
    else:
        fits = sum(cpus) >= required_cpus(config, config.workers)
        taken = str(required_cpus(config, config.workers))
    if not fits:
        print(f"the cluster has {sum(cpus):g} CPUs and the run takes {taken}: it waits for more", flush=True)


def tracking_location(config: TrainConfig) -> tuple[str, Path]:
    """The tracker's address, and the folder of the artifacts for a tracker that is a database.

    Raises `UserError` where the folder for a database of our own can't be made.
    """
    scheme, _, path = split_uri(config.storage)
    folder = Path(path if scheme == "file" else "runs")
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"MLflow's files can't be kept in {folder.resolve()} ({error.strerror}): set tracking_uri"
            ) from error
        uri = sqlite_uri(folder.resolve() / "mlflow.db")
    return uri, folder / "mlartifacts"


def _open_tracker(config: TrainConfig, folder: str, record: dict[str, Any], parent: str | None) -> Tracker:
    uri, artifacts = tracking_location(config)
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
    if known != tracker.run_id:
        write_record(folder, {**record, "mlflow_run": tracker.run_id})
        tracker.log_params(config.model_dump(mode="json"))
    return tracker


@contextmanager
def _finished_in(tracker: Tracker) -> Iterator[None]:
    """Close the MLflow run at the end of the block; raise a worker's `UserError` as this process's own."""
    try:
        yield
    except StoppedEarly:
        tracker.finish("KILLED")
        raise
    except BaseException as error:
        tracker.finish("FAILED")
        sentence = find_user_error(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    tracker.finish("FINISHED")


def _trainer(setup: WorkerSetup, monitor: ReportMonitor, pairs: Any | None) -> TorchTrainer:
    """Ray Train's trainer; pairs: a reference to the held-out pairs that checkpoints are validated on, or None."""
    config = setup.config
    gpus = _uses_gpus(config)
    worker_cpus = 1 + (setup.data_tasks if _loads_on_worker_cpus(config) else 0)
    file_system, path = storage.arrow_file_system(storage.absolute(config.storage))
    validation = None
    if pairs is not None:
        validation = ValidationTasks(
            partial(validate, pairs=pairs, tracker=setup.tracker),
            ray_remote_kwargs={"num_cpus": setup.cpus_of_a_task, "num_gpus": config.validation.gpus},
        )
    return TorchTrainer(
        partial(train_worker, setup),
        scaling_config=ScalingConfig(
            num_workers=config.workers
            if config.max_workers is None
            else (config.workers, config.max_workers),
            use_gpu=gpus,
            resources_per_worker=None if gpus else {"CPU": worker_cpus},
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
            callbacks=[monitor],
        ),
        validation_config=validation,
    )


def _register(result: ray.train.Result, tracker: Tracker, config: TrainConfig) -> None:
    """Put the averaged weights of the last checkpoint into MLflow's registry, with their model card."""
    with file_of(result.checkpoint, WEIGHTS_FILE) as weights:
        figures = {key: value for key, value in result.metrics.items() if key.startswith(("psnr", "ssim"))}
        title = f"DiffUIR-{config.variant}, {config.name}"
        validated = {"held-out pairs": figures} if figures else None
        card = model_card(title, open_weights(weights).recipe, validated, code_state())
        name = config.registered_model or f"diffuir-{config.variant.lower()}"
        tracker.log_file(weights, "weights")
        tracker.register(weights, card, name, re.sub(r"[^A-Za-z0-9_-]", "-", f"run-{config.name}"))


def find_user_error(error: BaseException) -> str | None:
    """Return the sentence of the `UserError` that ended a run, None where something else did.

    An error of the controller comes as the exception itself, one of a worker or a loading task as text inside
    tracebacks.
    """
    failure = getattr(error, "controller_failure", None)
    if isinstance(failure, UserError):
        return str(failure)
    texts = (str(error), *map(str, getattr(error, "worker_failures", {}).values()))
    for text in texts:
        found = re.search(rf"\b(?:{'|'.join(_class_names(UserError))}): (.+)", text)
        if found:
            return found[1].strip()
    if any(sign in text for sign in FULL_DISK for text in texts):
        return (
            "a disk is full, that of the run's folder or of the temporary files: make room, and the same command "
            "goes on"
        )
    if any(f"({code})" in text for code in storage.FULL_STORE for text in texts):
        return "the store of the run's folder is full: make room, and the same command goes on"
    return None


def _class_names(error: type[BaseException]) -> Iterator[str]:
    """The names of an exception class and of all its subclasses."""
    yield error.__name__
    for subclass in error.__subclasses__():
        yield from _class_names(subclass)
