"""State of a run between two steps, saved and loaded as a whole (guarantee 3)."""

from __future__ import annotations

import math
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffuir_core import Schedule, UNet, UserError, build

from .record import difference
from .settings import TrainConfig

STATE_FILE = "state.pt"

COMPILERS = {"cuda": ("CC", "cc", "gcc", "clang"), "cpu": ("CXX", "c++", "g++", "clang++")}
"""Where torch.compile looks for its compiler, by kind of device: an environment variable, then commands."""


def compiles(config: TrainConfig, device: torch.device) -> bool:
    """Whether torch.compile is used on this machine; raises `UserError` where it is set and has no compiler."""
    if config.compile is False or (config.compile is None and device.type != "cuda"):
        return False
    variable, *commands = COMPILERS[device.type]
    found = any(map(shutil.which, (os.environ.get(variable) or commands[0], *commands)))
    if config.compile and not found:
        raise UserError(
            f"compile = true takes a compiler and there is no {' or '.join(commands)}: install one, or leave "
            "compile out"
        )
    return found


def check_same_run(begun: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Raise `UserError`, naming the difference, where a checkpoint's recipe `begun` is not the run's `recipe`."""
    other = difference(begun["settings"], recipe["settings"])
    if other is None and begun["fingerprints"]["data"] != recipe["fingerprints"]["data"]:
        other = "other images"
    if other is not None:
        raise UserError(f"the checkpoint in the run's folder is of a run with {other}: take another name")


class TrainState:
    """Model, averaged model, optimiser, learning rate and the number of steps done.

    It needs no random state: times, noise, crops and degradations follow from (seed, batch number), and the data
    position from the number of steps done.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, initial: Mapping[str, Tensor] | None = None
    ) -> None:
        """Make the state before the first step; initial: state dict to start from, None for random weights."""
        torch.manual_seed(config.seed)
        model = build(config.variant)
        if initial is not None:
            model.load_state_dict(initial)
        self.config = config
        self.model = model.to(device)
        self.compiled = compiles(config, device)
        self.network: nn.Module = self.model
        """Callable of the loop: the model, or its compiled form."""
        if self.compiled:
            self.network = cast(nn.Module, torch.compile(self.model, dynamic=False))
        self.schedule = Schedule.release(config.delta_end, config.condition).to(device)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema.decay))
        self.optimizer = torch.optim.Adam(model.parameters(), config.learning_rate, betas=config.betas)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.step = 0
        self.learning_rate = 0.0
        """Learning rate of the last step."""
        self.points: list[dict[str, Any]] = []
        """Points that MLflow did not have yet at the checkpoint: the disk that holds them may be lost."""

    @property
    def averaged(self) -> UNet:
        """Network with the averaged weights."""
        return cast(UNet, self.ema.module)

    def advance(self, network: nn.Module) -> Tensor:
        """Make an optimiser step with the accumulated gradients; return their norm before clipping, ().

        The norm stays on the device: reading it at once would keep a GPU from being given its next steps.
        """
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.config.clip_norm)
        self.learning_rate = float(self.scheduler.get_last_lr()[0])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.scheduler.step()
        self.step += 1
        if self.step % self.config.ema.every == 0:
            self.ema.update_parameters(self.model)
        elif self.step < self.config.ema.every:
            # Nothing is averaged yet: panels and checkpoints show the model itself.
            self.averaged.load_state_dict(self.model.state_dict())
        return norm

    def is_finite(self) -> bool:
        """Whether weights, averaged weights and the optimiser's moments are finite; waits for the device."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        values = [*self.model.parameters(), *self.averaged.parameters(), *moments]
        return bool(nn.utils.get_total_norm(values, torch.inf).isfinite())

    def save(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Write the state and the recipe of the run into `folder`; raises OSError where the disk is full."""
        saved = {
            "recipe": recipe,
            "step": self.step,
            "points": self.points,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        try:
            # Given a path, torch writes it itself, and does not say why it could not.
            with (folder / STATE_FILE).open("wb") as file:
                torch.save(saved, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise

    def load(self, folder: Path, recipe: dict[str, Any]) -> None:
        """Load the state from a folder that `save` wrote.

        Raises `UserError` where it belongs to a run of other settings or data than `recipe`, or is damaged.
        """
        try:
            saved: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
            check_same_run(saved.get("recipe", recipe), recipe)
            self.step = saved["step"]
            self.points = saved.get("points", [])
            for name in ("model", "ema", "optimizer", "scheduler"):
                getattr(self, name).load_state_dict(saved[name])
        except (RuntimeError, EOFError, KeyError, ValueError, OSError, pickle.UnpicklingError) as error:
            raise UserError(
                f"the checkpoint that the run goes on from is damaged ({type(error).__name__}): take another "
                "name, or --overwrite to begin anew"
            ) from error

    def _rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.config.warmup) if self.config.warmup else 1.0
        if self.config.learning_rate_schedule == "constant":
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * min(step / self.config.steps, 1.0)))
