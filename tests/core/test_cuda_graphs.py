"""Passes recorded as CUDA graphs give the network's own results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffuir_core import Restorer, UNet, cuda_graphs
from diffuir_core.cuda_graphs import RecordedPasses
from diffuir_core.prepared_unet import PreparedUNet

if not torch.cuda.is_available():
    pytest.skip("CUDA graphs need a GPU", allow_module_level=True)

CUDA = torch.device("cuda")
TIMES = torch.tensor([990.0, 570.0, 40.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_recorded_pass_is_the_networks_bit_for_bit(tiny: UNet, dtype: torch.dtype) -> None:
    network = PreparedUNet(tiny, TIMES, CUDA, dtype)
    recorded = RecordedPasses(network)
    for _ in range(2):
        for size in ((4, 3, 64, 48), (1, 3, 128, 160)):
            image, degraded = torch.rand(2, *size, device=CUDA) * 2 - 1
            condition = network.condition_features(degraded)
            for step in range(3):
                assert torch.equal(recorded(image, condition, step), network(image, condition, step))
    assert len(recorded) == 6


def test_the_number_of_recordings_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MAX_RECORDINGS", 3)
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (side, 64, 3), dtype=np.uint8) for side in (64, 32, 48)]
    limited = Restorer(device="cuda", precision="bfloat16")
    restored = limited.restore(photos)
    assert len(limited._passes) == 3
    expected = Restorer(device="cuda", precision="bfloat16").restore(photos)
    assert all(np.array_equal(a, b) for a, b in zip(restored, expected, strict=True))
