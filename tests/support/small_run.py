"""Settings of a training run of a few steps on a few small photos."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from diffuir_platform.train import TrainConfig

STEPS = 6


def settings(photos: Path, storage: Path, **changes: object) -> dict[str, object]:
    return {
        "name": "test",
        "storage": str(storage),
        "data": {"clean": [str(photos)]},
        "stages": [{"steps": 4, "crop": 16, "batch": 10}, {"steps": STEPS - 4, "crop": 32, "batch": 10}],
        "learning_rate": 1e-3,
        "learning_rate_schedule": "cosine",
        "sampled_share": 0.5,
        "ema": {"decay": 0.5, "every": 1},
        "log_every": 1,
        "checkpoint_every": 2,
        "threads": 1,
        **changes,
    }


def config(photos: Path, storage: Path, **changes: object) -> TrainConfig:
    return TrainConfig.model_validate(settings(photos, storage, **changes))


def weights_of(storage: Path, name: str = "test") -> dict[str, torch.Tensor]:
    return load_file(storage / name / "weights.safetensors")
