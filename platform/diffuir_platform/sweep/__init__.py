"""Sweeps: a training run for every point of a grid, and what they reach in one table."""

from .run import run_sweep
from .settings import SweepConfig

__all__ = ["SweepConfig", "run_sweep"]
