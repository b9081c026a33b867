"""A network made ready to restore: the function of `UNet`, with what does not change at inference folded away.

- Standardised filters become plain convolutions.
- All images of a sampling step share its time, so the time's scale and shift go into the first norm of each
  residual block: one gain and one bias per step.
- The half of the first convolution that sees I_in is computed once per image, not once per step.
- Linear attention goes over the image in bands of rows with a running softmax, so that neither queries, keys nor
  values of a whole photo exist at once.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import (
    EPS,
    GROUPS,
    HEAD_DIM,
    HEADS,
    ChannelNorm,
    LinearAttention,
    PreNorm,
    Residual,
    ResidualBlock,
    StandardizedConv2d,
    UNet,
    as_image,
    as_tokens,
    pad_to_multiple,
)

BAND = 2**14
"""Positions that linear attention looks at together: 8 MiB of keys and as much of values in float32, below the
32 MiB from which the C library asks the system for each block anew."""


class PreparedUNet(nn.Module):
    """A copy of `model` for given sampling times.

    times: (steps,) float, what the network is told at each step (alpha_bar_t * 1000). dtype: of filters and
    activations, but for the first convolution, which is float32.
    """

    def __init__(self, model: UNet, times: Tensor, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.body = copy.deepcopy(model).requires_grad_(False).to(device)
        with torch.no_grad():
            embedded = self.body.time_mlp(times.to(device))
            _replace_parts(self.body, embedded)
        init = self.body.init_conv
        self.init_image = _conv(init.weight[:, :3], None)
        self.init_degraded = _conv(init.weight[:, 3:], init.bias)
        self.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Not the first convolution: black is -1, where bfloat16 is half a grey level apart.
        self.body.to(dtype)
        self.dtype = dtype

    def see(self, degraded: Tensor) -> Tensor:
        """What the first convolution makes of I_in, (B, 3, H, W) in [-1, 1]: the same at every step."""
        return self.init_degraded(self._ready(degraded))

    def forward(self, image: Tensor, seen: Tensor, step: int) -> Tensor:
        """I_res at `step`, (B, 3, H, W) float32, from I_t of that shape and what `see` made of I_in."""
        H, W = image.shape[-2:]
        first = self.init_image(self._ready(image)).add_(seen).to(self.dtype)
        return self.body.residual(first, step)[..., :H, :W].float()

    @staticmethod
    def _ready(image: Tensor) -> Tensor:
        return pad_to_multiple(image).contiguous(memory_format=torch.channels_last)


def _replace_parts(module: nn.Module, embedded: Tensor) -> None:
    for name, child in module.named_children():
        if isinstance(child, ResidualBlock):
            setattr(module, name, PreparedResidualBlock(child, embedded))
        elif (
            isinstance(child, Residual)
            and isinstance(child.fn, PreNorm)
            and isinstance(child.fn.fn, LinearAttention)
        ):
            setattr(module, name, BandedLinearAttention(child.fn.norm, child.fn.fn))
        else:
            _replace_parts(child, embedded)


class PreparedResidualBlock(nn.Module):
    """`ResidualBlock` with plain filters, whose first norm has a gain and a bias for each step."""

    def __init__(self, block: ResidualBlock, embedded: Tensor) -> None:
        super().__init__()
        scale, shift = block.mlp(embedded).chunk(2, dim=1)
        first, second = block.block1.norm, block.block2.norm
        self.conv1, self.conv2 = _plain(block.block1.proj), _plain(block.block2.proj)
        self.shortcut = block.res_conv
        self.gain1: Tensor
        self.bias1: Tensor
        self.gain2: Tensor
        self.bias2: Tensor
        self.register_buffer("gain1", first.weight * (scale + 1))
        self.register_buffer("bias1", first.bias * (scale + 1) + shift)
        self.register_buffer("gain2", second.weight)
        self.register_buffer("bias2", second.bias)

    def forward(self, x: Tensor, step: int) -> Tensor:
        out = _activated(self.conv1(x), self.gain1[step], self.bias1[step])
        out = _activated(self.conv2(out), self.gain2, self.bias2)
        return out.add_(self.shortcut(x))


def _plain(conv: StandardizedConv2d) -> nn.Conv2d:
    return _conv(conv.standardized(), conv.bias)


def _conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution that keeps the size, with these filters, (out, in, k, k) with k odd."""
    out_channels, in_channels, size, _ = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias is not None)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


def _activated(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, gain, bias, EPS), inplace=True)


class BandedLinearAttention(nn.Module):
    """x + LinearAttention(norm(x)) in bands of rows; the context is summed in float32."""

    def __init__(self, norm: ChannelNorm, attention: LinearAttention) -> None:
        super().__init__()
        self.norm = norm
        # Apart, so that each comes out dense: the products would copy a half of what they share.
        query, key, value = attention.to_qkv.weight.chunk(3)
        self.query = nn.Parameter(query, requires_grad=False)
        self.key = nn.Parameter(key, requires_grad=False)
        self.value = nn.Parameter(value, requires_grad=False)
        self.project, self.norm_out = cast(nn.Conv2d, attention.to_out[0]), attention.to_out[1]
        self.own_head = attention.own_head

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 and x[:, 0].numel() > BAND:
            return torch.cat([self(image[None]) for image in x])
        # By the image's own size, so that no sum depends on what it shares a batch with.
        bands = x.split(max(1, BAND // x.shape[-1]), dim=2)
        merged = self._context(bands)
        out = torch.empty_like(x)
        for band, into in zip(bands, out.split(bands[0].shape[2], dim=2), strict=True):
            torch.add(band, self._attended(band, merged), out=into)
        return out

    def _context(self, bands: tuple[Tensor, ...]) -> Tensor:
        """(B, 128, C): softmax of the keys over all positions, times the values, times the projection."""
        batch, positions = len(bands[0]), sum(band[0, 0].numel() for band in bands)
        peak = self.query.new_full((batch, 1, HEADS * HEAD_DIM), -torch.inf)
        total = torch.zeros_like(peak, dtype=torch.float32)
        context = total.new_zeros((batch, HEADS * HEAD_DIM, HEADS * HEAD_DIM))
        for band in bands:
            normed = self.norm(band)
            keys, values = (as_tokens(F.conv2d(normed, kind)) for kind in (self.key, self.value))
            top = torch.maximum(peak, keys.amax(dim=-2, keepdim=True))
            earlier, keys = (peak - top).exp().float(), (keys - top).exp_()
            total = total * earlier + keys.sum(dim=-2, keepdim=True).float()
            # One by one: the batched product copies what is transposed, slowly.
            products = torch.stack([k.T @ v for k, v in zip(keys, values, strict=True)])
            context = context * earlier.transpose(-1, -2) + products.float()
            peak = top
        context *= self.own_head / total.transpose(-1, -2)
        project = self.project.weight.flatten(1).float()
        return (context @ project.T * (HEAD_DIM**-0.5 / positions)).to(bands[0].dtype)

    def _attended(self, band: Tensor, merged: Tensor) -> Tensor:
        queries = as_tokens(F.conv2d(self.norm(band), self.query)).unflatten(-1, (HEADS, HEAD_DIM))
        out = torch.baddbmm(cast(Tensor, self.project.bias), queries.softmax(dim=-1).flatten(-2), merged)
        return self.norm_out(as_image(out, *band.shape[-2:]))
