"""The network prepared for inference: the same function as `UNet`, with everything constant folded in.

- Standardised filters become plain convolutions.
- All images of a sampling step share its time, so the time's scale and shift are folded into the first norm of
  each residual block: one gain and one bias per step.
- The half of the first convolution that sees I_in is computed once per image, not once per step.
- Linear attention works in bands of rows, so that the queries and keys of a whole photo never exist at once, and
  never computes the values.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norms import ImageStatistics, Step, StepNorm
from .unet import (
    EPS,
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

BAND_BYTES = {"cpu": 2**22, "cuda": 2**27}
"""Bytes of keys in one band of linear attention, by device type: few enough to stay in a CPU's caches, many enough
to fill a GPU."""

LARGEST_EXPONENT = 60.0
"""Largest exponent used without a shift: its exp, summed over 10^8 positions, stays far below the maximum of
float32 and bfloat16, about 10^38."""


class PreparedUNet(nn.Module):
    """A copy of `model` for given sampling times.

    times: (steps,) float, the network's time input at each step (alpha_bar_t * 1000). dtype: the dtype of filters
    and activations; the first convolution is always float32.
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
        # Not the first convolution: black is -1, where neighbouring bfloat16 values are half a grey level apart.
        self.body.to(dtype)
        self.dtype = dtype

    def condition_features(self, degraded: Tensor) -> Tensor:
        """The part of the first convolution that depends on I_in alone, and so is the same at every step.

        degraded: I_in, (B, 3, H, W) in [-1, 1]. Returns (B, dim, H, W) float32, H and W padded to multiples of 16.
        """
        return self.init_degraded(self._padded(degraded))

    def forward(
        self, image: Tensor, condition: Tensor, step: int, statistics: ImageStatistics | None = None
    ) -> Tensor:
        """I_res at `step`, (B, 3, H, W) float32.

        image: I_t, (B, 3, H, W). condition: `condition_features` of I_in. statistics: for a tile (B = 1), those of
        its image.
        """
        H, W = image.shape[-2:]
        first = self.init_image(self._padded(image)).add_(condition).to(self.dtype)
        return self.body.residual(first, Step(step, statistics))[..., :H, :W].float()

    @staticmethod
    def _padded(image: Tensor) -> Tensor:
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
    """`ResidualBlock` with plain filters and a first norm that has a gain and a bias for each step."""

    def __init__(self, block: ResidualBlock, embedded: Tensor) -> None:
        super().__init__()
        scale, shift = block.mlp(embedded).chunk(2, dim=1)
        first, second = block.block1.norm, block.block2.norm
        self.conv1, self.conv2 = _plain(block.block1.proj), _plain(block.block2.proj)
        self.norm1 = StepNorm(first.weight * (scale + 1), first.bias * (scale + 1) + shift)
        self.norm2 = StepNorm(*(each.expand_as(scale) for each in (second.weight, second.bias)))
        self.shortcut = block.res_conv

    def forward(self, x: Tensor, step: Step) -> Tensor:
        out = self.norm1(self.conv1(x), step)
        out = self.norm2(self.conv2(out), step)
        return out.add_(self.shortcut(x))


def _plain(conv: StandardizedConv2d) -> nn.Conv2d:
    return _conv(conv.standardized(), conv.bias)


def _conv(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the filters `weight`, (out, in, k, k), k odd, whose output is as large as its input."""
    out_channels, in_channels, size, _ = weight.shape
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias is not None)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return conv


class BandedLinearAttention(nn.Module):
    """x + LinearAttention(norm(x)) in bands of rows, its sums in float32.

    A channel norm leaves vectors of length sqrt(C) at most, so no key or query exceeds the norm of its filter
    times sqrt(C). Below `LARGEST_EXPONENT`, as trained weights are by far, their exponentials need no shift by
    the largest one; above it, they are shifted.

    k^T v is (k^T norm(x)) W_v^T: the values' filters are applied to the small context instead of the image.
    """

    def __init__(self, norm: ChannelNorm, attention: LinearAttention) -> None:
        super().__init__()
        gained = attention.to_qkv.weight * norm.g
        # Separate parameters, so that each result is dense: the products would copy a slice of a shared one.
        query, key, value = gained.chunk(3)
        self.query = nn.Parameter(query, requires_grad=False)
        self.key = nn.Parameter(key, requires_grad=False)
        self.value = nn.Parameter(value.flatten(1), requires_grad=False)
        self.project, self.norm_out = cast(nn.Conv2d, attention.to_out[0]), attention.to_out[1]
        self.own_head = attention.own_head
        largest = torch.cat((query, key)).flatten(1).norm(dim=1).max() * math.sqrt(query.shape[1])
        self.bounded = bool(largest < LARGEST_EXPONENT)

    def forward(self, x: Tensor) -> Tensor:
        largest = BAND_BYTES.get(x.device.type, BAND_BYTES["cpu"]) // (HEADS * HEAD_DIM * x.itemsize)
        if len(x) > 1 and x[:, 0].numel() > largest:
            return torch.cat([self(image[None]) for image in x])
        # From the image's size alone, so that no sum depends on the other images of the batch.
        rows = max(1, largest // x.shape[-1])
        normed = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=EPS).permute(0, 3, 1, 2)
        bands = normed.split(rows, dim=2)
        merged = self._context(bands)
        out = torch.empty_like(x)
        for band, before, after in zip(bands, x.split(rows, dim=2), out.split(rows, dim=2), strict=True):
            torch.add(before, self._attended(band, merged), out=after)
        return out

    def _context(self, bands: tuple[Tensor, ...]) -> Tensor:
        """The softmax of the keys over all positions, times the values, times the projection: (B, 128, C)."""
        positions = sum(band[0, 0].numel() for band in bands)
        peak = None if self.bounded else self._peak(bands)
        total, context = torch.zeros(()), torch.zeros(())
        for band in bands:
            keys = self._keys(band)
            keys = (keys if peak is None else keys.sub_(peak)).exp_()
            total = total + keys.sum(dim=-2).float()
            # Image by image: the batched product copies its transposed operand, slowly.
            products = torch.stack([k.T @ n for k, n in zip(keys, as_tokens(band), strict=True)])
            context = context + products.float()
        context = context / total.unsqueeze(-1) @ self.value.float().T * self.own_head
        project = self.project.weight.flatten(1).float()
        return (context @ project.T * (HEAD_DIM**-0.5 / positions)).to(bands[0].dtype)

    def _keys(self, band: Tensor) -> Tensor:
        return as_tokens(F.conv2d(band, self.key))

    def _peak(self, bands: tuple[Tensor, ...]) -> Tensor:
        """The largest value of each key over all positions: (B, 1, 128)."""
        peaks = [self._keys(band).amax(dim=-2, keepdim=True) for band in bands]
        return torch.stack(peaks).amax(dim=0)

    def _attended(self, band: Tensor, merged: Tensor) -> Tensor:
        queries = as_tokens(F.conv2d(band, self.query)).unflatten(-1, (HEADS, HEAD_DIM))
        if self.bounded:
            queries = queries.exp_()
            queries /= queries.sum(dim=-1, keepdim=True)
        else:
            queries = queries.softmax(dim=-1)
        out = torch.baddbmm(cast(Tensor, self.project.bias), queries.flatten(-2), merged)
        return self.norm_out(as_image(out, *band.shape[-2:]))
