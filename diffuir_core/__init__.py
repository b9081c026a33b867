"""DiffUIR: the method. numpy, torch, Pillow and safetensors carry it; no Ray, no server."""

from .errors import UserError
from .restorer import Restorer
from .sampling import sample, sample_ddpm
from .schedule import Schedule
from .unet import UNet, build
from .weights import Weights, load_weights, open_weights, save_weights

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
