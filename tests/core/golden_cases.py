"""The cases of the golden numbers: how their inputs are made, and how their outputs are summarised (golden/)."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Array = NDArray[np.float32]

HERE = Path(__file__).parent / "golden"
PREFIX = "model.unet0."
"""Prefix of the network's parameters in a published checkpoint."""
VALUES = 64
"""Values of an array in its summary, evenly spread from the first to the last."""


@dataclass(frozen=True)
class Case:
    """One variant on one pair of images."""

    variant: str
    draws: dict[str, tuple[int, float]]
    """Random input -> the seed of its standard normal draw, and the factor that this is multiplied by."""


CASES = {
    "T_48x64_3": Case("T", {"sampling_noise": (13, 1.0), "unet_in": (14, 0.5), "train_noise": (15, 1.0)}),
    "B_37x53_4": Case("B", {"sampling_noise": (23, 1.0), "unet_in": (24, 0.5), "train_noise": (25, 1.0)}),
}
"""Cases by name: the variant, the images' height and width, and the number of sampling steps."""

SCHEDULE_ARRAYS = {
    "alphas_cumsum": "alpha_bar",
    "betas_cumsum": "beta_bar",
    "delta_cumsum": "delta_bar",
    "alphas": "alpha",
    "betas2": "beta_squared",
    "delta": "delta",
}
"""Array of the published schedule -> attribute of `Schedule`."""


def drawn(case: Case, name: str, shape: tuple[int, ...]) -> Array:
    """The random input `name` of a case, float32 of `shape`."""
    seed, factor = case.draws[name]
    return np.asarray(factor * np.random.RandomState(seed).standard_normal(shape), np.float32)


def weight_by_rule(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value of the parameter `key` in all golden cases: it follows from its name and shape alone."""
    draw = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype("float32")
    if key.endswith((".g", "norm.weight")):
        value = 1 + 0.05 * draw
    elif len(shape) >= 2:
        value = draw / np.sqrt(np.prod(shape[1:])) * (0.3 if key.startswith("final_conv") else 1.0)
    else:
        value = 0.02 * draw
    return torch.from_numpy(np.asarray(value, dtype="float32"))


def read(name: str) -> dict[str, Any]:
    """The numbers of a case, of "schedule_release" or of "checkpoint_T"."""
    numbers: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return numbers


def read_image(name: str, side: str) -> Tensor:
    """The "clean" or "degraded" image of a case, (1, 3, H, W) in [0, 1]."""
    pixels = np.array(Image.open(HERE / f"{name}_{side}.png"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def summary(array: NDArray[Any]) -> dict[str, Any]:
    """A summary of an array to compare another one with: shape, mean, mean square, single values, and the means of
    its rows and columns where it has these."""
    exact = array.astype(np.float64)
    picked = np.linspace(0, array.size - 1, VALUES).round().astype(int)
    parts = {"mean": exact.mean(), "mean_square": (exact**2).mean(), "values": exact.ravel()[picked]}
    if array.ndim > 2:
        others = tuple(range(array.ndim - 2))
        parts |= {"rows": exact.mean((*others, -1)), "columns": exact.mean((*others, -2))}
    rounded = {key: [float(f"{v:.9g}") for v in np.atleast_1d(part)] for key, part in parts.items()}
    return {"shape": list(array.shape), **rounded}


def distance(actual: Tensor, expected: dict[str, Any]) -> float:
    """The largest difference between the summary of `actual` and `expected`; infinite for another shape."""
    found = summary(actual.detach().cpu().numpy())
    if found.pop("shape") != expected["shape"]:
        return float("inf")
    return max(float(np.abs(np.subtract(value, expected[key])).max()) for key, value in found.items())
