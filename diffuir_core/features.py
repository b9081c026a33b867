"""What the network makes of an image inside: features of the diffusion's end point, and what it responds to.

For the analyses of the paper's Figures 5 and 7, whose text does not say which layer they show; here it is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .diffusion import forward_process, network_time, predict_residual, start_release
from .schedule import Schedule, T
from .unet import UNet


@torch.inference_mode()
def end_point_features(
    model: UNet, schedule: Schedule, clean: Tensor, degraded: Tensor, noise: Tensor
) -> Tensor:
    """Features of the end point I_T of Eq. 4, (B, 2 C) float32: mean and standard deviation of each channel.

    They are the output of the last residual block of the middle, (B, C, H/8, W/8), at the last time. The network
    sees zeros in the place of I_in, which it would know the task from: the question is whether I_T alone tells.
    clean, degraded: (B, 3, H, W) in [-1, 1]. noise: (B, 3, H, W), standard normal, which beta_bar_T scales.
    """
    t = torch.full((len(clean),), T - 1)
    end_point = forward_process(schedule, clean, degraded, t, noise)
    with _output_of(model.get_submodule("mid_block2")) as taken:
        model(torch.cat((end_point, torch.zeros_like(end_point)), dim=1), network_time(schedule, t))
    (features,) = taken
    return torch.cat((features.mean((2, 3)), features.std((2, 3))), dim=1).float()


@torch.inference_mode()
def attention_map(model: UNet, schedule: Schedule, degraded: Tensor, noise: Tensor) -> Tensor:
    """How strongly the last features respond to each pixel, (B, H, W) float32, with mean 1.

    Activation-based attention (Zagoruyko and Komodakis 2017, arXiv 1612.03928): the sum of squares over the
    channels of the output of the last residual block, in the first step of sampling. degraded: (B, 3, H, W) in
    [-1, 1], H and W multiples of 16. noise: (B, 3, H, W), standard normal.
    """
    with _output_of(model.get_submodule("final_res_block")) as taken:
        image = start_release(schedule, degraded, noise)
        predict_residual(model, schedule, image, degraded, T - 1)
    (features,) = taken
    energy = features.float().square().sum(dim=1)
    return energy / energy.mean(dim=(1, 2), keepdim=True)


@contextmanager
def _output_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """The outputs of a module within the block, in a list."""
    taken: list[Tensor] = []
    handle = module.register_forward_hook(lambda module, inputs, output: taken.append(output))
    try:
        yield taken
    finally:
        handle.remove()
