"""The loop that every training worker runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from ray.train import CheckpointConsistencyMode, CheckpointUploadMode
from torch import Tensor, nn

from diffuir_core import save_weights
from diffuir_core.allocator import keep_freed_memory
from diffuir_core.degradations import TASKS
from diffuir_core.diffusion import forward_process, predict_residual, residual_loss, start_release
from diffuir_core.restorer import as_signal
from diffuir_core.sampling import ddim, last
from diffuir_core.schedule import sampling_times

from ..data import Draws, LocalBatch, Mixture, local_batches, preprocessing
from ..tracking import Tracker
from .checkpoints import WEIGHTS_FILE, file_of, remove_scratch_left_behind, scratch_folder
from .panels import sample_panel
from .progress import DIVERGED, Compiling, Loading, ProgressChannel, Replaced, Resumed, has_diverged
from .settings import TrainConfig
from .state import STATE_FILE, TrainState
from .stopping import StopSign, StopWatcher

SECONDS_BETWEEN_REPORTS = 5
"""Least time between two reports without a checkpoint, seconds. Ray Train takes one every two seconds at most, and
the next one waits for it. The tracker gets every point."""


@dataclass(frozen=True, kw_only=True)
class WorkerSetup:
    """Values that the driver hands to every worker of a run."""

    config: TrainConfig
    """Settings of the run."""
    sources: Any
    """Reference in Ray's object store to the items of each task."""
    initial: Any | None
    """Reference to the state dict to start from; None for random weights."""
    tracker: Tracker
    """MLflow run; the first worker logs into it."""
    recipe: dict[str, Any]
    """Settings, data and fingerprints for the header of checkpoints and exported weights."""
    data_tasks: int
    """Tasks that load for each worker at once."""
    cpus_of_a_task: float
    """Logical CPUs that each of these tasks asks for; 0 where the worker's own include them."""
    progress: ProgressChannel
    """Channel for the first worker's messages to the driver's terminal."""
    stop: StopSign
    """Sign by which the driver asks the workers to save a checkpoint and end."""


def train_worker(setup: WorkerSetup) -> None:
    """Train as one worker of a run: the function that `TorchTrainer` calls in each of them."""
    config = setup.config
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        keep_freed_memory()
        # Ray sets as many threads as the worker asked for CPUs, which are logical and say nothing of the cores.
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // world_size))
    remove_scratch_left_behind()
    first = rank == 0
    tracker = setup.tracker if first else None
    state = TrainState(config, device, setup.initial and ray.get(setup.initial))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with file_of(checkpoint, STATE_FILE) as file:
            state.load(file.parent, setup.recipe)
        if tracker:
            tracker.log_again(state.points)
        if first:
            setup.progress.send(Resumed(state.step))
    # Some nodes may have no compiler; still all workers must take part in the question.
    if any_worker(state.compiled, device, world_size) and first:
        setup.progress.send(Compiling())
    if first:
        setup.progress.send(Loading(world_size))
    network = ray.train.torch.prepare_model(state.network)
    sources = ray.get(setup.sources)
    prepared = preprocessing({task: sources[task] for task in config.tasks})
    mixture = Mixture(
        config.seed,
        config.batch_stages(),
        {t: len(s) for t, s in sources.items()},
        config.mixture,
        Draws(**config.draws.model_dump()),
    )
    meter = Meter(device, world_size)
    batches = meter.timed(
        local_batches(
            mixture,
            setup.sources,
            state.step * config.accumulate,
            rank,
            world_size,
            setup.data_tasks,
            cpus_of_a_task=setup.cpus_of_a_task,
        )
    )
    warned = False
    asked: Sequence[bool] | Tensor = (False, False)
    watcher = StopWatcher(setup.stop) if first else None
    stopping = False
    reported = -math.inf
    while state.step < config.steps and not stopping:
        for i in range(config.accumulate):
            # DDP adds the workers' gradients up once a step, with the last batch.
            local_only = world_size > 1 and i < config.accumulate - 1
            with network.no_sync() if local_only else nullcontext():
                meter.add(accumulate_gradients(network, state, next(batches), world_size))
        norm = state.advance(network)
        done = state.step == config.steps
        metrics: dict[str, float] = {}
        if done or state.step % config.log_every == 0:
            metrics = {
                "step": state.step,
                "learning_rate": state.learning_rate,
                "gradient_norm": float(norm),
                **meter.drain(),
            }
            replaced = meter.drain_replaced()
            if first and replaced:
                setup.progress.send(Replaced(state.step, tuple(replaced)))
            if tracker:
                # Each photo counts once from where this process started or resumed.
                tracker.log({**metrics, "replaced": len(meter.named)}, state.step)
        if tracker and (done or state.step % config.panels_every == 0):
            panel = sample_panel(state.averaged, state.schedule, mixture, sources)
            tracker.log_image(panel, f"panels/step-{state.step:07d}.png")
        # A node that is preempted takes all steps since the last checkpoint with it, and so does a run that is
        # stopped: save one more. The flags are read a step later: reading this step's would wait for the GPU.
        warning = not warned and ray.train.get_preemption_info() is not None
        leaving, stopping = not warned and bool(asked[0]), bool(asked[1])
        asked = any_worker_on_device(
            (warning, watcher is not None and watcher.is_asked()), device, world_size
        )
        warned = warned or leaving
        saves = done or leaving or stopping or state.step % config.checkpoint_every == 0
        # The driver ends a run that has diverged, and every checkpoint is one from before.
        if not has_diverged(metrics) and saves and any_worker(not state.is_finite(), device, world_size):
            metrics |= {"step": state.step, DIVERGED: 1.0}
        diverged = has_diverged(metrics)
        saves = saves and not diverged
        overdue = time.monotonic() - reported > SECONDS_BETWEEN_REPORTS
        if saves or diverged or (metrics and any_worker(overdue, device, world_size)):
            if saves:
                state.points = tracker.undelivered() if tracker else []
                report_checkpoint(
                    state, metrics, setup.recipe, prepared, rank=rank, validate=config.validation.wanted
                )
            else:
                ray.train.report(metrics)
            reported = time.monotonic()
    # Checkpoints are uploaded during the training: wait until the last one is in the storage.
    ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
    if tracker:
        tracker.flush()  # no other machine can deliver from this one's disk


def any_worker(flag: bool, device: torch.device, world_size: int) -> bool:
    """Whether `flag` is true on any worker. A collective: all workers must call it at the same step."""
    return bool(any_worker_on_device((flag,), device, world_size)[0])


def any_worker_on_device(
    flags: Sequence[bool], device: torch.device, world_size: int
) -> Sequence[bool] | Tensor:
    """`any_worker` for several flags, without waiting for the device: nonzero where the answer is yes."""
    if world_size == 1:
        return flags
    counts = torch.tensor(flags, dtype=torch.float32, device=device)
    torch.distributed.all_reduce(counts)
    return counts


def accumulate_gradients(
    network: nn.Module, state: TrainState, batch: LocalBatch, world_size: int
) -> dict[str, Tensor]:
    """Add the gradient of this worker's part of a global batch (Eq. 11, Algorithm 1).

    Returns `loss`, the sum over the images of each task, and `count`, their number, float32 (tasks,) each. Every
    image has the same weight whatever the number of workers: DDP averages over workers, so a worker's sum is
    scaled by world_size / (images in the global batch).
    """
    config, device = state.config, next(state.model.parameters()).device
    degraded, clean = (as_signal(pixels, device) for pixels in (batch.degraded, batch.clean))
    t, noise = draw_diffusion(batch, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device)):
        draw = np.random.default_rng((config.seed, batch.batch))
        if draw.random() < config.sampled_share:
            step = int(draw.integers(config.sampled_steps))
            t, image = sampling_input(state, degraded, noise, config.sampled_steps, step)
        else:
            image = forward_process(state.schedule, clean, degraded, t, noise)
        losses = residual_loss(network, state.schedule, clean, degraded, t, image)
    (losses.sum() * (world_size / (batch.total * config.accumulate))).backward()
    task = torch.tensor([TASKS.index(slot.task) for slot in batch.slots], device=device)
    loss, count = torch.zeros((2, len(TASKS)), device=device)
    return {
        "loss": loss.index_add_(0, task, losses.detach()),
        "count": count.index_add_(0, task, torch.ones_like(losses)),
    }


@torch.no_grad()
def sampling_input(
    state: TrainState, degraded: Tensor, noise: Tensor, steps: int, step: int
) -> tuple[Tensor, Tensor]:
    """The time (n,) and I_t (n, 3, H, W) that the network gets at `step` of the `steps` of a restore (Eq. 8).

    degraded, noise: (n, 3, H, W), in [-1, 1] and standard normal.
    """

    def predict(image: Tensor, step: int, t: int) -> Tensor:
        return predict_residual(state.network, state.schedule, image, degraded, t)

    start = start_release(state.schedule, degraded, noise)
    image = last(chain([start], islice(ddim(predict, state.schedule, start, degraded, steps), step)))
    return torch.full((len(image),), sampling_times(steps)[step], device=image.device), image


def draw_diffusion(batch: LocalBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The time (n,) and noise (n, 3, H, W) of each image, drawn from its slot's own seed."""
    n, H, W, _ = batch.clean.shape
    t = torch.empty(n, dtype=torch.int64)
    noise = torch.empty((n, 3, H, W), device=device)
    generator = torch.Generator(device)
    for i, slot in enumerate(batch.slots):
        # numpy draws the crop from the same seed; the streams of two kinds of generators are unrelated.
        generator.manual_seed(slot.seed % 2**63)
        t[i] = slot.seed % 1000
        noise[i].normal_(generator=generator)
    return t.to(device), noise


def uses_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network runs in bfloat16."""
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


def report_checkpoint(
    state: TrainState,
    metrics: dict[str, float],
    recipe: dict[str, Any],
    prepared: dict[str, str],
    rank: int,
    validate: bool,
) -> None:
    """Report `metrics` to Ray Train; the first worker adds a checkpoint, with weights that are ready to restore.

    prepared: the preprocessing of each task in training. validate: whether the checkpoint is to be validated; this
    and the upload run beside the training.
    """
    if rank != 0:
        ray.train.report(metrics)
        return
    folder = scratch_folder()  # Ray Train removes it once it is uploaded
    state.save(folder, recipe)
    recipe = {**recipe, "steps_done": state.step}
    save_weights(folder / WEIGHTS_FILE, state.averaged, state.schedule, recipe, prepared)
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint.from_directory(folder),
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        validation=validate,
    )


class Meter:
    """Metrics since the last `drain`: losses by task, throughput, and the share of time spent waiting for data."""

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.device = device
        self.world_size = world_size
        self.replaced: set[str] = set()
        self.named: set[str] = set()
        self._reset()

    def add(self, sums: dict[str, Tensor]) -> None:
        """Count what `accumulate_gradients` returned."""
        self.totals += torch.stack((sums["loss"], sums["count"]))

    def timed(self, batches: Iterator[LocalBatch]) -> Iterator[LocalBatch]:
        """Yield `batches`, and measure the wait for each of them."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - began
            if batch is None:
                return
            self.replaced.update(batch.replaced)
            yield batch

    def drain(self) -> dict[str, float]:
        """Return the metrics over all workers and start anew. A collective: all workers must call it."""
        elapsed = time.perf_counter() - self.since
        if self.world_size > 1:
            torch.distributed.all_reduce(self.totals)
        loss, count = self.totals.cpu().double()
        metrics = {
            "loss": float(loss.sum() / count.sum()),
            "images_per_second": float(count.sum()) / elapsed,
            "data_wait_share": self.waited / elapsed,
        }
        metrics |= {f"loss_{t}": float(loss[i] / count[i]) for i, t in enumerate(TASKS) if count[i] > 0}
        self._reset()
        return metrics

    def drain_replaced(self) -> list[str]:
        """Return a line for each photo that some worker could not use and that no earlier call returned.

        A collective: all workers must call it.
        """
        lines = sorted(self.replaced - self.named)
        if self.world_size > 1:
            gathered: list[list[str]] = [[] for _ in range(self.world_size)]
            torch.distributed.all_gather_object(gathered, lines)
            lines = sorted({line for each in gathered for line in each})
        self.named.update(lines)
        self.replaced.clear()
        return lines

    def _reset(self) -> None:
        self.totals = torch.zeros((2, len(TASKS)), device=self.device)
        self.waited = 0.0
        self.since = time.perf_counter()
