from .run import run_sweep
from .settings import SweepConfig

__all__ = ["SweepConfig", "run_sweep"]
