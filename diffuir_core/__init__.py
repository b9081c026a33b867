"""DiffUIR: the method. numpy, torch, Pillow and safetensors carry it; no Ray, no server.

Names are imported when they are first used, so that a process that only reads photos does not load torch.
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

_HOMES = {
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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
