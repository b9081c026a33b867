from __future__ import annotations

import pytest
import torch

from diffuir_core import UNet, UserError, build
from diffuir_core.unet import Attention, LinearAttention, pad_to_multiple
from diffuir_core.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_count_is_exact(name: str) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build(name).parameters()) == VARIANTS[name].parameters


@pytest.mark.parametrize("name", VARIANTS)
def test_cost_of_a_pass(name: str) -> None:
    """The published cost within 10%: the linear attention's products between heads, masked later, add a little."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = build(name)
        counter = FlopCounterMode(display=False)
        with counter:
            model(torch.empty(1, 6, 256, 256), torch.empty(1))
    assert counter.get_total_flops() / 1e9 == pytest.approx(VARIANTS[name].gflop_256, rel=0.1)


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="T, S, B, L"):
        build("XL")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (7, 5), (16, 16), (17, 33)])
def test_any_size_keeps_its_size(tiny: UNet, height: int, width: int) -> None:
    with torch.inference_mode():
        assert tiny(torch.zeros(2, 6, height, width), torch.zeros(2)).shape == (2, 3, height, width)


def test_padding_reflects_at_the_right_and_bottom() -> None:
    x = torch.rand(1, 6, 21, 30)
    expected = torch.nn.functional.pad(x, (0, 2, 0, 11), mode="reflect")
    torch.testing.assert_close(pad_to_multiple(x), expected)


def test_padding_goes_on_reflecting_where_the_edge_is_short() -> None:
    row = pad_to_multiple(torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3))[0, 0, 0]
    assert row.tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]


def test_linear_attention_is_the_formula() -> None:
    """Per head: softmax_features(q) 32^-0.5 (softmax_positions(k)^T v / (H W)), then the projection and norm."""
    torch.manual_seed(0)
    attention = LinearAttention(16)
    x = torch.randn(2, 16, 6, 5)
    q, k, v = attention.to_qkv(x).reshape(2, 3, 4, 32, 30).unbind(1)
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v / 30)
    out = torch.einsum("bhde,bhdn->bhen", context, q.softmax(-2) * 32**-0.5)
    expected = attention.to_out(out.reshape(2, 128, 6, 5))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_full_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    attention = Attention(16)
    x = torch.randn(2, 16, 6, 5)
    q, k, v = attention.to_qkv(x).reshape(2, 3, 4, 32, 30).unbind(1)
    weights = torch.einsum("bhdi,bhdj->bhij", q * 32**-0.5, k).softmax(-1)
    out = torch.einsum("bhij,bhdj->bhdi", weights, v)
    torch.testing.assert_close(
        attention(x), attention.to_out(out.reshape(2, 128, 6, 5)), atol=1e-5, rtol=1e-4
    )


def test_activations_stay_channels_last(tiny: UNet) -> None:
    """No layout copies: the output of each attention and convolution is channels-last like its input."""
    layouts = {}

    def note(name: str) -> object:
        def hook(module: object, inputs: object, output: torch.Tensor) -> None:
            layouts[name] = output.is_contiguous(memory_format=torch.channels_last)

        return hook

    handles = [
        module.register_forward_hook(note(name))  # type: ignore[arg-type]
        for name, module in tiny.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.GroupNorm | LinearAttention | Attention)
    ]
    try:
        with torch.inference_mode():
            tiny(torch.rand(2, 6, 32, 32), torch.rand(2))
    finally:
        for handle in handles:
            handle.remove()
    assert len(layouts) > 50
    assert [name for name, channels_last in layouts.items() if not channels_last] == []


def test_autocast_leaves_the_first_convolution_in_float32(tiny: UNet) -> None:
    """Half a grey level above black must reach the network; in bfloat16 it could be rounded away."""
    seen: list[torch.Tensor] = []
    handle = tiny.init_conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    black = torch.full((1, 6, 16, 16), -1.0)
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            out = tiny(black, torch.tensor([500.0]))
            tiny(black + 0.5 / 127.5, torch.tensor([500.0]))
    finally:
        handle.remove()
    assert out.dtype == torch.bfloat16
    assert seen[0].dtype == torch.float32
    assert not torch.equal(seen[0], seen[1])
