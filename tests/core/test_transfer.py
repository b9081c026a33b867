"""Tensors arrive on a device and back unchanged, and on a GPU without waiting."""

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
def test_a_round_trip_to_the_device_changes_nothing(device: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    arrived = to_cpu(to_device(torch.from_numpy(pixels), torch.device(device)).permute(2, 0, 1))
    assert np.array_equal(arrived(), pixels.transpose(2, 0, 1))


@GPU
def test_a_pending_copy_is_not_overwritten_by_later_ones() -> None:
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
