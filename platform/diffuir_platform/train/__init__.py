"""Training runs: settings, the driver, the loop of a worker, its state and checkpoints, validation."""

import lazy_loader

# The names of __init__.pyi, each loaded when it is first used: `--help` waits for neither torch nor Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
