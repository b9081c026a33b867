from .run import train
from .settings import TrainConfig
from .sweep_settings import SweepConfig

__all__ = ["SweepConfig", "TrainConfig", "train"]
