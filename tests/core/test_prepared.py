"""The prepared network is the network: same function, other arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffuir_core import UNet, prepared
from diffuir_core.prepared import PreparedUNet

CPU = torch.device("cpu")
TIMES = torch.tensor([990.0, 570.0, 40.0])


def both(model: UNet, *size: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """What the network and its prepared copy say at the second of three times."""
    torch.manual_seed(0)
    image, degraded = torch.rand(2, size[0], 3, *size[1:]) * 2 - 1
    ready = PreparedUNet(model, TIMES, CPU, dtype)
    with torch.inference_mode():
        expected = model(torch.cat((image, degraded), dim=1), TIMES[1].expand(len(image)))
        return ready(image, ready.see(degraded), 1), expected


@pytest.mark.parametrize("name", ["T", "S"])
@pytest.mark.parametrize("size", [(1, 32, 48), (2, 33, 17), (1, 1, 5)])
def test_it_predicts_what_the_network_does(
    by_rule: Callable[[str], UNet], name: str, size: tuple[int, int, int]
) -> None:
    ours, expected = both(by_rule(name), *size)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("band", [1, 100, 1000])
def test_bands_of_any_height_give_the_same(tiny: UNet, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "BAND", band)
    ours, expected = both(tiny, 2, 40, 48)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


def test_bfloat16_is_near(tiny: UNet) -> None:
    ours, expected = both(tiny, 1, 64, 64, dtype=torch.bfloat16)
    assert ours.dtype == torch.float32
    assert float((ours - expected).abs().mean()) < 0.01 * float(expected.std())


def test_the_model_it_is_made_of_stays_as_it_was(tiny: UNet) -> None:
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    PreparedUNet(tiny, TIMES, CPU, torch.bfloat16)
    after = tiny.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
