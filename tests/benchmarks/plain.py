"""A straightforward implementation of the network: eager, float32, contiguous, every attention written out.

The speed of `PreparedUNet` is given as a ratio to this one's. It uses the parameters of a `UNet`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from diffuir_core.unet import EPS, GROUPS, HEAD_DIM, HEADS, UNet


class PlainUNet:
    """The forward pass of `UNet`: (B, 6, H, W), H and W multiples of 16, and (B,) times -> (B, 3, H, W)."""

    def __init__(self, model: UNet) -> None:
        self.dim = model.variant.dim
        self.state = {key: value.detach().contiguous() for key, value in model.state_dict().items()}

    def __call__(self, x: Tensor, time: Tensor) -> Tensor:
        embedded = self._time(time)
        first = x = self._conv("init_conv", x, padding=3)
        skips = []
        for level in range(4):
            x = self._residual_block(f"downs.{level}.0", x, embedded)
            skips.append(x)
            x = self._residual_block(f"downs.{level}.1", x, embedded)
            x = x + self._linear_attention(f"downs.{level}.2.fn", x)
            skips.append(x)
            x = self._conv(f"downs.{level}.3", x, **({"stride": 2} if level < 3 else {}), padding=1)
        x = self._residual_block("mid_block1", x, embedded)
        x = x + self._attention("mid_attn.fn", x)
        x = self._residual_block("mid_block2", x, embedded)
        for level in range(4):
            for block in range(2):
                x = self._residual_block(f"ups.{level}.{block}", torch.cat((x, skips.pop()), 1), embedded)
            x = x + self._linear_attention(f"ups.{level}.2.fn", x)
            if level < 3:
                x = self._conv(f"ups.{level}.3.1", F.interpolate(x, scale_factor=2), padding=1)
            else:
                x = self._conv(f"ups.{level}.3", x, padding=1)
        x = self._residual_block("final_res_block", torch.cat((x, first), 1), embedded)
        return self._conv("final_conv", x)

    def _conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"), stride, padding)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _time(self, time: Tensor) -> Tensor:
        half = self.dim // 2
        angles = time[:, None] * torch.exp(
            torch.arange(half, device=time.device) * (-math.log(10000) / (half - 1))
        )
        sinusoids = torch.cat((angles.sin(), angles.cos()), 1)
        return self._linear("time_mlp.3", F.gelu(self._linear("time_mlp.1", sinusoids)))

    def _block(self, name: str, x: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
        weight = self.state[f"{name}.proj.weight"]
        mean = weight.mean((1, 2, 3), keepdim=True)
        variance = weight.var((1, 2, 3), correction=0, keepdim=True)
        x = F.conv2d(
            x, (weight - mean) * (variance + EPS).rsqrt(), self.state[f"{name}.proj.bias"], padding=1
        )
        x = F.group_norm(x, GROUPS, self.state[f"{name}.norm.weight"], self.state[f"{name}.norm.bias"], EPS)
        if modulation is not None:
            x = x * (modulation[0] + 1) + modulation[1]
        return F.silu(x)

    def _residual_block(self, name: str, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self._linear(f"{name}.mlp.1", F.silu(embedded))[:, :, None, None].chunk(2, 1)
        out = self._block(f"{name}.block2", self._block(f"{name}.block1", x, (scale, shift)))
        return out + (self._conv(f"{name}.res_conv", x) if f"{name}.res_conv.weight" in self.state else x)

    def _channel_norm(self, name: str, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return (x - mean) * (variance + EPS).rsqrt() * self.state[f"{name}.g"]

    def _heads(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        """The queries, keys and values, each (B, heads, features, positions)."""
        qkv = self._conv(f"{name}.fn.to_qkv", self._channel_norm(f"{name}.norm", x))
        return tuple(part.unflatten(1, (HEADS, HEAD_DIM)).flatten(3) for part in qkv.chunk(3, 1))

    def _linear_attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self._heads(name, x)
        q = q.softmax(2) * HEAD_DIM**-0.5
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(3), v / q.shape[3])
        out = torch.einsum("bhde,bhdn->bhen", context, q).flatten(1, 2).unflatten(2, x.shape[2:])
        return self._channel_norm(f"{name}.fn.to_out.1", self._conv(f"{name}.fn.to_out.0", out))

    def _attention(self, name: str, x: Tensor) -> Tensor:
        q, k, v = self._heads(name, x)
        weights = torch.einsum("bhdi,bhdj->bhij", q * HEAD_DIM**-0.5, k).softmax(3)
        out = torch.einsum("bhij,bhdj->bhdi", weights, v).flatten(1, 2).unflatten(2, x.shape[2:])
        return self._conv(f"{name}.fn.to_out", out)
