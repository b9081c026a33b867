from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffuir_core import UNet, build
from diffuir_core.degradations._fields import Photo


def _by_rule(variant: str) -> UNet:
    """A network whose weights follow from its parameters' names: the rule of the golden values."""
    model = build(variant)
    state = {}
    for key, parameter in model.state_dict().items():
        shape = tuple(parameter.shape)
        drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype("float32")
        if key.endswith((".g", "norm.weight")):
            value = 1 + 0.05 * drawn
        elif len(shape) >= 2:
            scale = 0.3 if key.startswith("final_conv") else 1.0
            value = drawn / np.sqrt(np.prod(shape[1:])) * scale
        else:
            value = 0.02 * drawn
        state[key] = torch.from_numpy(np.asarray(value, dtype="float32"))
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def by_rule() -> Callable[[str], UNet]:
    """variant -> a network with weights by rule."""
    return _by_rule


@pytest.fixture(scope="session")
def tiny() -> UNet:
    """A DiffUIR-T with weights by rule."""
    return _by_rule("T")


@pytest.fixture(scope="session")
def photo() -> Photo:
    """A part of a real photo, (160, 240, 3)."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[20:180, 120:360])
