"""DiffUIR, the method: the diffusion, the network, its weights, and photos in and out. No Ray, no server.

README.md says which equation of the paper is where. Names are imported on first use, so that a process that only
reads photos does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import UserError

if TYPE_CHECKING:
    from .restorer import Restorer
    from .sampling import sample, sample_ddpm
    from .schedule import Schedule
    from .unet import UNet, build
    from .weights import Weights, load_weights, open_weights, save_weights

_MODULE_OF = {
    "Restorer": "restorer",
    "Schedule": "schedule",
    "UNet": "unet",
    "Weights": "weights",
    "build": "unet",
    "load_weights": "weights",
    "open_weights": "weights",
    "sample": "sampling",
    "sample_ddpm": "sampling",
    "save_weights": "weights",
}

__all__ = [
    "Restorer",
    "Schedule",
    "UNet",
    "UserError",
    "Weights",
    "build",
    "load_weights",
    "open_weights",
    "sample",
    "sample_ddpm",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
