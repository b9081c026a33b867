"""The U-Net that predicts the residual: concat(I_t, I_in) and a time in, I_res out.

Parameter names are those of the published checkpoints. Activations stay channels-last throughout: in that
layout an image (B, C, H, W) seen as tokens (B, H W, C) is a view, so convolutions, channel norm and both
attentions share one memory order and nothing is copied between them.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .variants import Variant, variant

HEADS = 4
"""Heads of both attentions."""
HEAD_DIM = 32
"""Features of a head."""
GROUPS = 8
"""Groups of every group norm."""
EPS = 1e-5
"""Added to the variance in every normalisation."""
MULTIPLE = 16
"""Height and width are padded to a multiple of this, in pixels. The three halvings need 8; 16 is as published."""


def build(name: str) -> UNet:
    """A freshly initialised network of variant "T", "S", "B" or "L"; raises `UserError` for any other name."""
    return UNet(variant(name))


class StandardizedConv2d(nn.Conv2d):
    """A 3x3 convolution whose filters are standardised: zero mean, unit (biased) variance, eps 1e-5.

    Weight standardisation, Qiao et al. 2019 (arXiv 1903.10520).
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.standardized(), self.bias, padding=1)

    def standardized(self) -> Tensor:
        """The filters as they are applied, of `weight`'s shape."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), correction=0, keepdim=True)
        return (self.weight - mean) * (variance + EPS).rsqrt()


class Block(nn.Module):
    """Standardised 3x3 conv, GroupNorm 8, the time's scale and shift, SiLU."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.proj = StandardizedConv2d(dim_in, dim_out, 3, padding=1)
        self.norm = nn.GroupNorm(GROUPS, dim_out)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = self.norm(self.proj(x))
        if scale is not None and shift is not None:
            x = torch.addcmul(shift, x, scale + 1)
        return F.silu(x)


class ResidualBlock(nn.Module):
    """Two blocks and a shortcut; the time embedding (B, 4 dim) gives the scale and shift of the first block."""

    def __init__(self, dim_in: int, dim_out: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, 2 * dim_out))
        self.block1 = Block(dim_in, dim_out)
        self.block2 = Block(dim_out, dim_out)
        self.res_conv = nn.Conv2d(dim_in, dim_out, 1) if dim_in != dim_out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale, shift = self.mlp(time)[:, :, None, None].chunk(2, dim=1)
        return self.block2(self.block1(x, scale, shift)) + self.res_conv(x)


class ChannelNorm(nn.Module):
    """Each position normalised over its channels (biased variance, eps 1e-5), with a gain and no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        gain = self.g.flatten().to(tokens.dtype)
        return F.layer_norm(tokens, gain.shape, gain, None, EPS).permute(0, 3, 1, 2)


def own_head_mask() -> Tensor:
    """1 where a row and a column belong to the same head, else 0; (HEADS HEAD_DIM, HEADS HEAD_DIM) float32."""
    mask = torch.zeros(HEADS, HEAD_DIM, HEADS, HEAD_DIM)
    # Not eye or kron: on the device "meta" they import torch's compiler, which takes a second.
    mask.diagonal(dim1=0, dim2=2).fill_(1.0)
    return mask.view(HEADS * HEAD_DIM, HEADS * HEAD_DIM)


class LinearAttention(nn.Module):
    """Attention in O(H W): softmax of q over features and of k over positions, context = k^T v.

    Shen et al. 2021 (arXiv 1812.01243). v is divided by H W as published.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(HEADS * HEAD_DIM, dim, 1), ChannelNorm(dim))
        self.register_buffer("own_head", own_head_mask(), persistent=False)
        self.own_head: Tensor

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        q, k, v = as_tokens(self.to_qkv(x)).chunk(3, dim=-1)
        q = q.unflatten(-1, (HEADS, HEAD_DIM)).softmax(dim=-1).flatten(-2)
        # All heads in one product; products of one head's k with another's v are masked out. Four times the
        # arithmetic on a 128 x 128 context costs less than separating the heads in memory.
        context = (k.softmax(dim=-2).transpose(-1, -2) @ v) * self.own_head
        project, norm = cast(nn.Conv2d, self.to_out[0]), self.to_out[1]
        # q (context W) instead of (q context) W: the projection is applied to the small context, not the image.
        merged = context @ project.weight.flatten(1).T * (HEAD_DIM**-0.5 / (H * W))
        return norm(as_image(q @ merged + project.bias, H, W))


class Attention(nn.Module):
    """Full softmax attention over all positions, by the fused kernel (memory linear in H W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_qkv = nn.Conv2d(dim, 3 * HEADS * HEAD_DIM, 1, bias=False)
        self.to_out = nn.Conv2d(HEADS * HEAD_DIM, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        qkv = as_tokens(self.to_qkv(x)).unflatten(-1, (3, HEADS, HEAD_DIM))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        return self.to_out(as_image(out, H, W))


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) channels-last as (B, H W, C), a view."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_image(tokens: Tensor, H: int, W: int) -> Tensor:
    """(B, H W, C) as a channels-last (B, C, H, W), a view."""
    return tokens.unflatten(1, (H, W)).permute(0, 3, 1, 2)


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class SinusoidalEmbedding(nn.Module):
    """(B,) times -> (B, dim): sines then cosines of frequencies 10000^(-i / (dim/2 - 1))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, time: Tensor) -> Tensor:
        half = self.dim // 2
        exponents = torch.arange(half, device=time.device) * -(math.log(10000) / (half - 1))
        angles = time.float()[:, None] * exponents.exp()
        return torch.cat((angles.sin(), angles.cos()), dim=-1)


class UNet(nn.Module):
    """The network, which predicts I_res from I_t, I_in and the time.

    forward(x, time): x (B, 6, H, W) float = concat(I_t, I_in), I_in in [-1, 1], any H, W >= 1; time (B,) float,
    alpha_bar_t * 1000. Returns I_res, (B, 3, H, W), in x's dtype, or in autocast's.
    """

    def __init__(self, size: Variant) -> None:
        super().__init__()
        self.variant = size
        dim, time_dim = size.dim, size.dim * 4
        widths = [dim] + [dim * m for m in size.multipliers]
        levels = list(itertools.pairwise(widths))
        last = len(levels) - 1

        self.init_conv = nn.Conv2d(6, dim, 7, padding=3)
        self.time_mlp = nn.Sequential(
            SinusoidalEmbedding(dim), nn.Linear(dim, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )
        self.downs = nn.ModuleList()
        for i, (narrow, wide) in enumerate(levels):
            down = nn.Conv2d(narrow, wide, 4, 2, 1) if i < last else nn.Conv2d(narrow, wide, 3, padding=1)
            self.downs.append(
                nn.ModuleList(
                    [
                        ResidualBlock(narrow, narrow, time_dim),
                        ResidualBlock(narrow, narrow, time_dim),
                        Residual(PreNorm(narrow, LinearAttention(narrow))),
                        down,
                    ]
                )
            )
        middle = widths[-1]
        self.mid_block1 = ResidualBlock(middle, middle, time_dim)
        self.mid_attn = Residual(PreNorm(middle, Attention(middle)))
        self.mid_block2 = ResidualBlock(middle, middle, time_dim)
        self.ups = nn.ModuleList()
        for i, (narrow, wide) in enumerate(reversed(levels)):
            conv = nn.Conv2d(wide, narrow, 3, padding=1)
            up = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv) if i < last else conv
            self.ups.append(
                nn.ModuleList(
                    [
                        ResidualBlock(wide + narrow, wide, time_dim),
                        ResidualBlock(wide + narrow, wide, time_dim),
                        Residual(PreNorm(wide, LinearAttention(wide))),
                        up,
                    ]
                )
            )
        self.final_res_block = ResidualBlock(dim * 2, dim, time_dim)
        self.final_conv = nn.Conv2d(dim, 3, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        x = pad_to_multiple(x).contiguous(memory_format=torch.channels_last)
        return self.residual(_in_float32(self.init_conv, x), self.time_mlp(time))[..., :H, :W]

    def residual(self, first: Tensor, time: object) -> Tensor:
        """I_res, (B, 3, H, W), from the first convolution's output (B, dim, H, W), H and W multiples of 16.

        time: its embedding (B, 4 dim), or the argument that replaced residual blocks take instead
        (`prepared_unet.py`).
        """
        x = first
        skips: list[Tensor] = []
        for level in self.downs:
            block1, block2, attention, down = level.children()
            x = block1(x, time)
            skips.append(x)
            x = attention(block2(x, time))
            skips.append(x)
            x = down(x)
        x = self.mid_block2(self.mid_attn(self.mid_block1(x, time)), time)
        for level in self.ups:
            block1, block2, attention, up = level.children()
            x = block1(torch.cat((x, skips.pop()), dim=1), time)
            x = block2(torch.cat((x, skips.pop()), dim=1), time)
            x = up(attention(x))
        x = self.final_res_block(torch.cat((x, first), dim=1), time)
        return self.final_conv(x)


def _in_float32(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(x) in float32, with only the result in autocast's dtype.

    Black is -1, where neighbouring bfloat16 values are half a grey level apart.
    """
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return conv(x)
    with torch.autocast(device, enabled=False):
        return conv(x).to(torch.get_autocast_dtype(device))


def pad_to_multiple(x: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Pad `x`, (..., H, W), by reflection at its right and bottom edges to multiples of 16, or of another number.

    An image smaller than its padding is reflected repeatedly, so that 1-pixel images work too.
    """
    for axis, padded in zip((-2, -1), padded_size(x.shape[-2], x.shape[-1], multiple), strict=True):
        size = x.shape[axis]
        if padded > size:
            x = x.index_select(axis, reflected_indices(size, padded, x.device))
    return x


def padded_size(height: int, width: int, multiple: int = MULTIPLE) -> tuple[int, int]:
    """Height and width rounded up to multiples of 16, or of another number, in pixels."""
    return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple


def reflected_indices(size: int, padded: int, device: torch.device) -> Tensor:
    """Indices 0 .. size-1, then back and forth without repeating the edge pixel: (padded,) int64."""
    period = max(2 * (size - 1), 1)
    ramp = torch.arange(padded, device=device) % period
    return torch.minimum(ramp, period - ramp) if size > 1 else torch.zeros_like(ramp)
