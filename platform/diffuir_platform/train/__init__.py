"""Training runs: settings, the loop of a worker, its state and checkpoints, validation."""

from .run import train
from .settings import TrainConfig

__all__ = ["TrainConfig", "train"]
