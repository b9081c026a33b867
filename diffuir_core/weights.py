"""Weights files: safetensors with a header of ours, and the published `.pt` checkpoints.

The safetensors header (`__metadata__`, text to text) has these keys, with JSON from `schedule` on:

| key             | value                                                                      |
|-----------------|----------------------------------------------------------------------------|
| `format`        | "diffuir/1"                                                                |
| `variant`       | "T", "S", "B" or "L"                                                       |
| `schedule`      | {"name": "release", "delta_end": 0.0018, "condition": "full"}; older files |
|                 | have no condition, which means "full"                                      |
| `recipe`        | the training: settings, steps, data                                        |
| `steps`         | number of DDIM steps that the weights need; without it, 3                  |
| `preprocessing` | task -> preprocessing of the degraded image; {} for none                   |
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError
from .files import replacing
from .pretrained import PRETRAINED
from .schedule import Schedule
from .unet import LinearAttention, UNet, build, own_head_mask
from .variants import VARIANTS

FORMAT = "diffuir/1"

STEPS = 3
"""Number of DDIM steps of the published weights, and of files that do not say theirs."""

RELEASE_PREFIX = "ema_model.model.unet0."
"""Prefix of the averaged weights' names in the "ema" part of a published checkpoint."""


@dataclass(frozen=True)
class Weights:
    """The contents of a weights file: the network, and what the header records about it."""

    model: UNet
    """The network, in eval mode on the CPU, without gradients."""
    schedule: Schedule
    """The schedule it was trained with."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Settings, steps and data of the training."""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    """Preprocessing of the degraded image by task, such as {"low_light": "equalise"}."""
    steps: int = STEPS
    """Number of DDIM steps that they need."""


def load_weights(path: str | os.PathLike[str] | None = None) -> UNet:
    """Load the network of a weights file, in eval mode on the CPU; None loads the weights that ship.

    path: a safetensors file written by `save_weights`, or a published `.pt`, of which the averaged weights are
    taken. The variant is inferred from the shapes, and every parameter must be present. Raises `UserError` for a
    missing, truncated or foreign file.
    """
    return open_weights(path).model


def open_weights(path: str | os.PathLike[str] | None = None) -> Weights:
    """Load the network as `load_weights` does, with its schedule, recipe and preprocessing."""
    file = PRETRAINED if path is None else Path(path)
    if not file.is_file():
        raise UserError(
            f"there is no weights file at {file}: give a .safetensors file of ours or a published .pt"
        )
    if zipfile.is_zipfile(file) or file.suffix in (".pt", ".pth", ".ckpt"):
        return _open_release(file)
    return _open_safetensors(file)


def save_weights(
    path: str | os.PathLike[str],
    model: UNet,
    schedule: Schedule,
    recipe: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    steps: int = STEPS,
) -> None:
    """Write `model` as float32 safetensors with its header, to a temporary name that is then renamed to `path`."""
    header = {
        "format": FORMAT,
        "variant": model.variant.name,
        "schedule": json.dumps(
            {"name": "release", "delta_end": schedule.delta_end, "condition": schedule.condition}
        ),
        "recipe": json.dumps(recipe or {}),
        "steps": json.dumps(steps),
        "preprocessing": json.dumps(preprocessing or {}),
    }
    state = {k: v.detach().cpu().float().contiguous() for k, v in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata=header)


def _open_safetensors(file: Path) -> Weights:
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            state = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} is not a readable safetensors file ({error}): it may be truncated, copy it again"
        ) from error
    if header.get("format") != FORMAT:
        raise UserError(
            f"{file} is a safetensors file, but not weights of DiffUIR (it has no {FORMAT!r} header)"
        )
    try:
        recorded = json.loads(header["schedule"])
        recipe, preprocessing = json.loads(header["recipe"]), json.loads(header["preprocessing"])
        schedule = Schedule.release(float(recorded["delta_end"]), recorded.get("condition", "full"))
        steps = int(json.loads(header.get("steps", str(STEPS))))
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps is {steps}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} has a damaged header ({error!r}): export the weights again") from error
    return Weights(_network(file, state), schedule, recipe, preprocessing, steps)


def _open_release(file: Path) -> Weights:
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{file} is not a readable PyTorch checkpoint ({reason})") from error
    ema = checkpoint.get("ema") if isinstance(checkpoint, dict) else None
    if not isinstance(ema, dict):
        raise UserError(f"{file} is not a DiffUIR release checkpoint: it holds no averaged weights ('ema')")
    state = {k.removeprefix(RELEASE_PREFIX): v for k, v in ema.items() if k.startswith(RELEASE_PREFIX)}
    # Published schedules differ in the last increment only (FoundIR's is 1.4e-3).
    delta = ema.get("ema_model.delta")
    schedule = Schedule.release(float(delta[-1])) if isinstance(delta, Tensor) else Schedule.release()
    return Weights(_network(file, state), schedule, recipe={"source": "release", "file": file.name})


def _network(file: Path, state: dict[str, Tensor]) -> UNet:
    """The network of the variant whose parameters have exactly these names and shapes, filled with them."""
    shapes = {key: tuple(value.shape) for key, value in state.items() if isinstance(value, Tensor)}
    for name in VARIANTS:
        with torch.device("meta"):
            model = build(name)
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        if wanted == shapes:
            break
    else:
        raise UserError(
            f"{file} holds {len(shapes)} tensors that fit none of the variants {', '.join(VARIANTS)}: "
            "it is incomplete or belongs to another model"
        )
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise UserError(f"{file} holds values that are not finite numbers: the file is damaged")
    # Copies in float32: the tensors of a safetensors file lie in the file.
    model.load_state_dict(
        {key: value.to(torch.float32, copy=True) for key, value in state.items()}, assign=True
    )
    for module in model.modules():
        if isinstance(module, LinearAttention):
            module.own_head = own_head_mask()
    return model.eval().requires_grad_(False)
