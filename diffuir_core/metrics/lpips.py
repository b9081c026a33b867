"""LPIPS, a learned distance of two photos (Zhang et al. 2018, "The unreasonable effectiveness of deep features").

The networks are defined here; their weights are published files that you name, which are checked by their hashes.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..pixels import Pixels
from .errors import MetricError
from .protocols import check_pair, size_of

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation, for levels in [-1, 1]."""
EPSILON = 1e-10
"""Offset of the length that a feature is divided by."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of weights that is published elsewhere."""

    name: str
    sha256: str
    """The first hexadecimal digits of its SHA-256, or all 64."""
    at: str
    """Where it is published."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A classifier whose features are compared: convolutions of 5 levels, up to where LPIPS needs them."""

    layers: tuple[tuple[int, int, int, int, int], ...]
    """(index in the published file, output channels, kernel, stride, padding) of each convolution."""
    taken: tuple[int, ...]
    """Indices of the convolutions whose rectified output is compared."""
    pooled: tuple[int, ...]
    """Indices of the convolutions before which the input is pooled."""
    pool: int
    """Side of the pooling window, pixels; its stride is 2."""
    smallest: int
    """Shortest side of an image, pixels."""
    file: PublishedFile
    linear: PublishedFile
    """The weights of the comparison."""


_VERSION = "https://github.com/richzhang/PerceptualSimilarity/tree/master/lpips/weights/v0.1"
_VGG_LAYERS = (
    *((index, 64) for index in (0, 2)),
    *((index, 128) for index in (5, 7)),
    *((index, 256) for index in (10, 12, 14)),
    *((index, 512) for index in (17, 19, 21, 24, 26, 28)),
)
BACKBONES = {
    "vgg": Backbone(
        layers=tuple((index, channels, 3, 1, 1) for index, channels in _VGG_LAYERS),
        taken=(2, 7, 14, 21, 28),
        pooled=(5, 10, 17, 24),
        pool=2,
        smallest=16,
        file=PublishedFile(
            name="vgg16-397923af.pth",
            sha256="397923af",
            at="https://download.pytorch.org/models/vgg16-397923af.pth",
        ),
        linear=PublishedFile(
            name="vgg.pth",
            sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            at=f"{_VERSION}, and in the package lpips 0.1.4",
        ),
    ),
    "alex": Backbone(
        layers=(
            (0, 64, 11, 4, 2),
            (3, 192, 5, 1, 2),
            (6, 384, 3, 1, 1),
            (8, 256, 3, 1, 1),
            (10, 256, 3, 1, 1),
        ),
        taken=(0, 3, 6, 8, 10),
        pooled=(3, 6),
        pool=3,
        smallest=31,
        file=PublishedFile(
            name="alexnet-owt-7be5be79.pth",
            sha256="7be5be79",
            at="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        ),
        linear=PublishedFile(
            name="alex.pth",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            at=f"{_VERSION}, and in the package lpips 0.1.4",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class LpipsVariant:
    """One of the definitions of LPIPS that circulate."""

    name: str
    backbone: Literal["vgg", "alex"]
    signed: bool
    """Whether levels are in [-1, 1], as the linear weights expect, or in [0, 1]."""
    source: str


LPIPS_VARIANTS = {
    variant.name: variant
    for variant in (
        LpipsVariant(name="vgg", backbone="vgg", signed=True, source="lpips 0.1 with VGG16"),
        LpipsVariant(name="alex", backbone="alex", signed=True, source="lpips 0.1 with AlexNet, its default"),
        LpipsVariant(
            name="vgg-01",
            backbone="vgg",
            signed=False,
            source="the published code of DiffUIR on UDC, which measures images before they are rounded",
        ),
    )
}


class Lpips(nn.Module):
    """LPIPS of two batches (B, 3, H, W) in [0, 1]: (B,), 0 for equal ones, and lower is better."""

    shift: Tensor
    scale: Tensor

    def __init__(self, variant: str, backbone: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        """backbone: the state of the classifier, whose `features.N.weight` and `.bias` are used. linear: that of
        the comparison, `linN.model.1.weight`. Raises `UserError` for a name that is no variant and weights that
        lack a part.
        """
        super().__init__()
        self.variant = lpips_variant(variant)
        self.backbone = BACKBONES[self.variant.backbone]
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        channels = 3
        self.convolutions = nn.ModuleDict()
        self.linear = nn.ParameterList()
        for index, width, kernel, stride, padding in self.backbone.layers:
            convolution = nn.Conv2d(channels, width, kernel, stride, padding)
            _fill(convolution.weight, backbone, f"features.{index}.weight")
            assert convolution.bias is not None
            _fill(convolution.bias, backbone, f"features.{index}.bias")
            self.convolutions[str(index)] = convolution
            if index in self.backbone.taken:
                weights = nn.Parameter(torch.empty(1, width, 1, 1))
                _fill(weights, linear, f"lin{len(self.linear)}.model.1.weight")
                self.linear.append(weights)
            channels = width
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of each pair."""
        total = torch.zeros(len(first), device=first.device)
        for weights, one, other in zip(
            self.linear, self._features(first), self._features(second), strict=True
        ):
            total = total + (weights * (one - other) ** 2).sum(dim=1).mean(dim=(1, 2))
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """The features of five levels, each pixel's of length 1."""
        levels = images * 2 - 1 if self.variant.signed else images
        levels = (levels - self.shift) / self.scale
        features = []
        for index, *_ in self.backbone.layers:
            if index in self.backbone.pooled:
                levels = F.max_pool2d(levels, self.backbone.pool, stride=2)
            levels = F.relu(self.convolutions[str(index)](levels))
            if index in self.backbone.taken:
                length = levels.square().sum(dim=1, keepdim=True).sqrt()
                features.append(levels / (length + EPSILON))
        return features


def lpips(a: Pixels, b: Pixels, model: Lpips) -> float:
    """LPIPS of two uint8 RGB photos (H, W, 3) of one shape, on the device of `model`; lower is better.

    Raises `MetricError` for images that can't be compared or are too small for the network.
    """
    check_pair(a, b)
    smallest = model.backbone.smallest
    if min(a.shape[:2]) < smallest:
        raise MetricError(
            f"LPIPS needs images of at least {smallest}x{smallest} pixels, these are {size_of(a)}."
        )
    tensors = (
        torch.from_numpy(image).to(model.shift.device).permute(2, 0, 1)[None] / 255 for image in (a, b)
    )
    with torch.inference_mode():
        return float(model(*tensors))


def load_lpips(variant: str, backbone: Path, linear: Path) -> Lpips:
    """Read a model from the two published files of `BACKBONES`, checked by their hashes.

    Raises `UserError` for a file that is missing or another one, which says where the right one is published.
    """
    published = BACKBONES[lpips_variant(variant).backbone]
    return Lpips(variant, read_published(backbone, published.file), read_published(linear, published.linear))


def lpips_variant(name: str) -> LpipsVariant:
    """The variant of that name; raises `UserError` for any other name."""
    try:
        return LPIPS_VARIANTS[name]
    except KeyError:
        raise UserError(f"there is no LPIPS {name!r}: choose one of {', '.join(LPIPS_VARIANTS)}") from None


def read_published(path: Path, published: PublishedFile) -> dict[str, Tensor]:
    """Read a file of weights, which must be `published` by its hash; raises `UserError` where it is not."""
    wanted = f"it should be {published.name}, which is published at {published.at}"
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): {wanted}") from error
    if not found.startswith(published.sha256):
        raise UserError(f"{path} is another file, with the SHA-256 {found[:16]}...: {wanted}")
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"{path} can't be read as weights: {wanted}") from error
    return state


def _fill(parameter: Tensor, state: Mapping[str, Tensor], name: str) -> None:
    if name not in state or state[name].shape != parameter.shape:
        found = tuple(state[name].shape) if name in state else "missing"
        raise UserError(f"{name} is {found} and should be {tuple(parameter.shape)}: these are other weights")
    with torch.no_grad():
        parameter.copy_(state[name])
