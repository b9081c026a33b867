"""Data sets: indexes of them, their layouts, and the stream of training batches made from them."""

import lazy_loader

# The names of __init__.pyi, each loaded when it is first used: `--help` waits for neither torch nor Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
