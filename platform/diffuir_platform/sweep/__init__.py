"""Sweeps: a training run for every point of a grid, and what they reach in one table."""

import lazy_loader

# The names of __init__.pyi, each loaded when it is first used: `--help` waits for neither torch nor Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
