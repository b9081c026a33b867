"""The loop that every training worker runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
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
from diffuir_core.sampling import ddim, last
from diffuir_core.schedule import sampling_times
from diffuir_core.transfer import to_device

from ..data import Mixture, Share, preprocessing, shares_of_batches
from ..tracking import Tracker
from .checkpoints import WEIGHTS_FILE, file_of, remove_scratch_left_behind, scratch_folder
from .panels import sample_panel
from .progress import is_lost
from .settings import TrainConfig
from .state import STATE_FILE, TrainState

SECONDS_BETWEEN_REPORTS = 5
"""Ray Train looks for a report every two seconds, and the next one waits for it. The tracker has every point."""


def train_worker(setup: dict[str, Any]) -> None:
    """What `TorchTrainer` runs on each worker.

    setup: `config` (TrainConfig), `sources` (a reference to every task's items), `initial` (None, or a reference
    to the weights to start from), `tracker` (Tracker), `recipe` (for the header of the exported weights),
    `data_tasks` (that load for each worker), `cpus_of_a_task` (logical CPUs that each of them asks for).
    """
    config: TrainConfig = setup["config"]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        keep_freed_memory()
        # Ray sets one thread per CPU it was asked for, which is a logical number here.
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // world_size))
    remove_scratch_left_behind()
    tracker: Tracker | None = setup["tracker"] if rank == 0 else None
    state = TrainState(config, device, setup["initial"] and ray.get(setup["initial"]))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with file_of(checkpoint, STATE_FILE) as file:
            state.load(file.parent, setup["recipe"])
        if tracker:
            tracker.log_again(state.points)
        ray.train.report({"says": f"going on from step {state.step:,}"})
    # Not all of the nodes need have a compiler, but all workers must report.
    if any_worker(state.compiled, device, world_size):
        ray.train.report({"says": "the network is compiled: its first steps take minutes"})
    network = ray.train.torch.prepare_model(state.network)
    sources = ray.get(setup["sources"])
    prepared = preprocessing({task: sources[task] for task in config.tasks})
    mixture = Mixture(
        config.seed, config.batch_stages(), {t: len(s) for t, s in sources.items()}, config.mixture
    )
    meter = Meter(device, world_size)
    shares = meter.waiting_for(
        shares_of_batches(
            mixture,
            setup["sources"],
            state.step * config.accumulate,
            rank,
            world_size,
            setup["data_tasks"],
            cpus_of_a_task=setup["cpus_of_a_task"],
        )
    )
    warned = False
    answer: bool | Tensor = False
    replaced: list[str] = []
    reported = -math.inf
    while state.step < config.steps:
        for i in range(config.accumulate):
            # DDP adds the workers' gradients up once a step, with the last batch.
            alone = world_size > 1 and i < config.accumulate - 1
            with network.no_sync() if alone else nullcontext():
                meter.add(accumulate_gradients(network, state, next(shares), world_size))
        norm = state.advance(network)
        done = state.step == config.steps
        metrics: dict[str, Any] = {}
        if done or state.step % config.log_every == 0:
            metrics = {
                "step": state.step,
                "learning_rate": float(state.scheduler.get_last_lr()[0]),
                "gradient_norm": float(norm),
                **meter.drain(),
            }
            replaced += meter.drain_replaced()
            if tracker:
                # Each is named once, from where the process began or went on.
                tracker.log({**metrics, "replaced": len(meter.named)}, state.step)
        if tracker and (done or state.step % config.panels_every == 0):
            panel = sample_panel(state.averaged, state.schedule, mixture, sources)
            tracker.log_image(panel, f"panels/step-{state.step:07d}.png")
        # A node that is about to go: what was learned since the last checkpoint goes with it otherwise.
        # Seen a step later: whoever looks at this step's answer waits for the GPU.
        told = not warned and ray.train.get_preemption_info() is not None
        leaving, answer = not warned and bool(answer), ask_workers(told, device, world_size)
        warned = warned or leaving
        lost = is_lost(metrics)  # the driver ends the run: what is kept is from before
        keeps = not lost and (done or leaving or state.step % config.checkpoint_every == 0)
        waited = time.monotonic() - reported > SECONDS_BETWEEN_REPORTS
        if keeps or lost or (metrics and any_worker(waited, device, world_size)):
            if metrics:
                metrics["replaced"], replaced = replaced, []
            if keeps:
                state.points = tracker.undelivered() if tracker else []
                report_checkpoint(
                    state, metrics, setup["recipe"], prepared, rank=rank, validate=config.validation.wanted
                )
            else:
                ray.train.report(metrics)
            reported = time.monotonic()
    # Checkpoints are uploaded beside the training; the run is over when the last one lies in the storage.
    ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
    if tracker:
        tracker.flush()  # nobody else reaches what this machine has kept for the tracker


def any_worker(so: bool, device: torch.device, world_size: int) -> bool:
    """Whether it is so for any worker; all must ask at the same step."""
    return bool(ask_workers(so, device, world_size))


def ask_workers(so: bool, device: torch.device, world_size: int) -> bool | Tensor:
    """The same, on the device: what is true there once all have answered."""
    if world_size == 1:
        return so
    flag = torch.tensor([float(so)], device=device)
    torch.distributed.all_reduce(flag)
    return flag


def accumulate_gradients(
    network: nn.Module, state: TrainState, share: Share, world_size: int
) -> dict[str, Tensor]:
    """Add this worker's part of a global batch's gradient; returns the summed loss and the count of each task.

    Each image weighs the same whatever the number of workers: DDP averages over workers, so a worker's sum is
    scaled by world_size / (images in the global batch).
    """
    config, device = state.config, next(state.model.parameters()).device
    degraded, clean = (as_signal(pixels, device) for pixels in (share.degraded, share.clean))
    t, noise = draw_diffusion(share, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(config, device)):
        draw = np.random.default_rng((config.seed, share.batch))
        if draw.random() < config.sampled_share:
            step = int(draw.integers(config.sampled_steps))
            t, image = sampled(state, degraded, noise, config.sampled_steps, step)
        else:
            image = forward_process(state.schedule, clean, degraded, t, noise)
        losses = residual_loss(network, state.schedule, clean, degraded, t, image)
    (losses.sum() * (world_size / (share.total * config.accumulate))).backward()
    task = torch.tensor([TASKS.index(slot.task) for slot in share.slots], device=device)
    loss, count = torch.zeros((2, len(TASKS)), device=device)
    return {
        "loss": loss.index_add_(0, task, losses.detach()),
        "count": count.index_add_(0, task, torch.ones_like(losses)),
    }


@torch.no_grad()
def sampled(
    state: TrainState, degraded: Tensor, noise: Tensor, steps: int, step: int
) -> tuple[Tensor, Tensor]:
    """The time (n,) and I_t (n, 3, H, W) that the network meets at `step` of `steps` when it restores."""

    def predict(image: Tensor, step: int, t: int) -> Tensor:
        return predict_residual(state.network, state.schedule, image, degraded, t)

    start = start_release(state.schedule, degraded, noise)
    image = last(chain([start], islice(ddim(predict, state.schedule, start, degraded, steps), step)))
    return torch.full((len(image),), sampling_times(steps)[step], device=image.device), image


def as_signal(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, H, W, 3) in 0 .. 255 -> float32 (n, 3, H, W) in [-1, 1], channels-last."""
    return to_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def draw_diffusion(share: Share, device: torch.device) -> tuple[Tensor, Tensor]:
    """The time (n,) and noise (n, 3, H, W) of each image, drawn from its slot's own seed."""
    n, H, W, _ = share.clean.shape
    t = torch.empty(n, dtype=torch.int64)
    noise = torch.empty((n, 3, H, W), device=device)
    generator = torch.Generator(device)
    for i, slot in enumerate(share.slots):
        # The same seed feeds numpy for the crop; another generator's stream from it is unrelated.
        generator.manual_seed(slot.seed % 2**63)
        t[i] = slot.seed % 1000
        noise[i].normal_(generator=generator)
    return t.to(device), noise


def uses_bfloat16(config: TrainConfig, device: torch.device) -> bool:
    """Whether the network runs in bfloat16."""
    return config.precision == "bfloat16" or (config.precision == "auto" and device.type == "cuda")


def report_checkpoint(
    state: TrainState,
    metrics: dict[str, Any],
    recipe: dict[str, Any],
    prepared: dict[str, str],
    rank: int,
    validate: bool,
) -> None:
    """Hand Ray Train a complete checkpoint, with the averaged weights beside the state, ready to restore with.

    prepared: the preprocessing that the weights were trained with. It is uploaded, and validated, while training
    goes on.
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
    """Losses by task, throughput and the share of time spent waiting for data, since the last `drain`."""

    def __init__(self, device: torch.device, world_size: int) -> None:
        self.device = device
        self.world_size = world_size
        self.replaced: set[str] = set()
        self.named: set[str] = set()
        self._reset()

    def add(self, sums: dict[str, Tensor]) -> None:
        """Count one batch's share."""
        self.totals += torch.stack((sums["loss"], sums["count"]))

    def waiting_for(self, shares: Iterator[Share]) -> Iterator[Share]:
        """`shares`, the time spent waiting for each counted."""
        while True:
            asked = time.perf_counter()
            share = next(shares, None)
            self.waited += time.perf_counter() - asked
            if share is None:
                return
            self.replaced.update(share.replaced)
            yield share

    def drain(self) -> dict[str, float]:
        """The figures over all workers, which must all call it."""
        elapsed = time.perf_counter() - self.since
        if self.world_size > 1:
            torch.distributed.all_reduce(self.totals)
        loss, count = self.totals.cpu().double()
        figures = {
            "loss": float(loss.sum() / count.sum()),
            "images_per_second": float(count.sum()) / elapsed,
            "data_wait_share": self.waited / elapsed,
        }
        figures |= {f"loss_{t}": float(loss[i] / count[i]) for i, t in enumerate(TASKS) if count[i] > 0}
        self._reset()
        return figures

    def drain_replaced(self) -> list[str]:
        """A line for each item that no worker could use and that was not named before; all must call it."""
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
