from .run import train
from .settings import TrainConfig

__all__ = ["TrainConfig", "train"]
