"""The prepared network computes the same function as the network, with other arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from diffuir_core import UNet, prepared_unet
from diffuir_core.norms import ImageStatistics, Step, StepNorm
from diffuir_core.prepared_unet import PreparedUNet
from diffuir_core.unet import LinearAttention

CPU = torch.device("cpu")
TIMES = torch.tensor([990.0, 570.0, 40.0])


def both(model: UNet, *size: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The results of the prepared copy and of the network, at the second of three times."""
    torch.manual_seed(0)
    image, degraded = torch.rand(2, size[0], 3, *size[1:]) * 2 - 1
    ready = PreparedUNet(model, TIMES, CPU, dtype)
    with torch.inference_mode():
        expected = model(torch.cat((image, degraded), dim=1), TIMES[1].expand(len(image)))
        return ready(image, ready.condition_features(degraded), 1), expected


@pytest.mark.parametrize("name", ["T", "S"])
@pytest.mark.parametrize("size", [(1, 32, 48), (2, 33, 17), (1, 1, 5)])
def test_it_predicts_the_networks_output(
    by_rule: Callable[[str], UNet], name: str, size: tuple[int, int, int]
) -> None:
    ours, expected = both(by_rule(name), *size)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("positions", [1, 100, 1000])
def test_bands_of_any_height_give_the_same(
    tiny: UNet, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(prepared_unet.BAND_BYTES, "cpu", positions * 4 * 128)
    ours, expected = both(tiny, 2, 40, 48)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("factor", [1, 20, 2000])
def test_keys_and_queries_of_any_size_give_the_same(tiny: UNet, factor: float) -> None:
    """Exponentials are shifted only where the filters' norms allow values beyond exp's range."""
    model = copy.deepcopy(tiny)
    for module in model.modules():
        if isinstance(module, LinearAttention):
            module.to_qkv.weight[: 2 * 128] *= factor
    attentions = [
        m for m in PreparedUNet(model, TIMES, CPU, torch.float32).modules() if hasattr(m, "bounded")
    ]
    assert {attention.bounded for attention in attentions} == {factor == 1}
    ours, expected = both(model, 2, 40, 48)
    # At 2,000 a softmax selects one position, and another rounding may select another one.
    torch.testing.assert_close(ours, expected, atol=2e-5 * max(1, factor / 20), rtol=0)


def test_a_tile_that_is_the_whole_image_has_the_whole_images_statistics(tiny: UNet) -> None:
    torch.manual_seed(1)
    image, degraded = torch.rand(2, 1, 3, 48, 64) * 2 - 1
    ready = PreparedUNet(tiny, TIMES, CPU, torch.float32)
    statistics = ImageStatistics()
    with torch.inference_mode():
        condition = ready.condition_features(degraded)
        expected = ready(image, condition, 1)
        gathered = ready(image, condition, 1, statistics)
        statistics.gathering = False
        used = ready(image, condition, 1, statistics)
    torch.testing.assert_close(gathered, expected, atol=0, rtol=0)
    torch.testing.assert_close(used, expected, atol=1e-5, rtol=0)


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 32, 40, 24).to(memory_format=torch.channels_last) * 3 + 1
    norm = StepNorm(torch.rand(2, 32), torch.rand(2, 32))
    statistics = ImageStatistics()
    for part in x.split(16, dim=2):
        norm(part, Step(1, statistics))
    statistics.gathering = False
    parts = [norm(part, Step(1, statistics)) for part in x.split(16, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2), norm(x, Step(1)), atol=1e-5, rtol=0)


def test_bfloat16_is_close_to_float32(tiny: UNet) -> None:
    ours, expected = both(tiny, 1, 64, 64, dtype=torch.bfloat16)
    assert ours.dtype == torch.float32
    assert float((ours - expected).abs().mean()) < 0.01 * float(expected.std())


def test_the_model_it_is_made_of_stays_as_it_was(tiny: UNet) -> None:
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    PreparedUNet(tiny, TIMES, CPU, torch.bfloat16)
    after = tiny.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
