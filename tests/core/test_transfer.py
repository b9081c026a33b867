"""Tensors come to a device and back as they are, and on a GPU nothing waits for them on the way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from diffuir_core import Restorer
from diffuir_core.transfer import to_cpu, to_device

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_there_and_back(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    arrived = to_cpu(to_device(torch.from_numpy(pixels), torch.device(device)).permute(2, 0, 1))
    assert np.array_equal(arrived(), pixels.transpose(2, 0, 1))


@GPU
def test_what_is_on_its_way_is_not_overwritten_by_what_comes_next() -> None:
    arrivals = [to_cpu(torch.full((512, 512), float(i), device="cuda").byte()) for i in range(50)]
    assert all((arrived() == i).all() for i, arrived in enumerate(arrivals))


@GPU
def test_a_restore_is_begun_without_waiting_for_the_one_before(
    request: pytest.FixtureRequest,
) -> None:
    restorer = Restorer(device="cuda", precision="bfloat16")
    photos = np.random.default_rng(0).integers(0, 256, (3, 500, 450, 3), dtype=np.uint8)
    restorer.restore(photos)  # the first one records its passes
    request.getfixturevalue("waiting_is_an_error")
    restorer.restore(photos)
