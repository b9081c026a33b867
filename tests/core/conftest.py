from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from golden_cases import weight_by_rule

from diffuir_core import UNet, build
from diffuir_core.pixels import Pixels


def _by_rule(variant: str) -> UNet:
    model = build(variant)
    model.load_state_dict(
        {key: weight_by_rule(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    )
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def by_rule() -> Callable[[str], UNet]:
    """Variant -> a network with the weights of the golden numbers (golden/README.md)."""
    return _by_rule


@pytest.fixture(scope="session")
def tiny() -> UNet:
    """A DiffUIR-T with the weights of the golden numbers."""
    return _by_rule("T")


@pytest.fixture(scope="session")
def photo() -> Pixels:
    """A part of a real photo, (160, 240, 3)."""
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[20:180, 120:360])
