"""Protocols of PSNR and SSIM: which levels are compared, and what SSIM does at borders.

What papers call PSNR and SSIM "on Y" or "on RGB" are several definitions, which differ by up to 1.6 dB and 0.27 of
SSIM on the same images. `PROTOCOLS` holds each of them once, under the name that every figure carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..pixels import Pixels, is_rgb
from .errors import MetricError

Planes = NDArray[np.float64]
ProtocolName = Literal["released-y", "matlab-y", "rgb-3d", "rgb", "gray"]
"""The names of `PROTOCOLS`."""

PEAK = 255.0
"""Largest level."""
LUMA_WEIGHTS = (65.481, 128.553, 24.966)
"""Weights of R, G and B in Y of ITU-R BT.601, studio range, for levels in [0, 1]."""
LUMA_BLACK = 16.0
"""Y of black, levels."""
GREY_WEIGHTS = (0.298936021293775, 0.587043074451121, 0.114020904255103)
"""Weights of R, G and B in MATLAB's `rgb2gray`."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One definition of PSNR and SSIM. PSNR depends on channel, rounding and crop only."""

    name: str
    channel: Literal["y", "rgb", "grey"]
    """Levels that are compared: Y of BT.601 in studio range, all three channels, or MATLAB's grey."""
    rounded: bool
    """Whether Y or grey is rounded to whole levels, as MATLAB does for uint8 images."""
    borders: Literal["replicate", "valid"]
    """SSIM at the borders: windows reach over them, where the last pixel is repeated, or must lie inside."""
    window: Literal["2d", "3d"]
    """SSIM's window: 11x11 pixels of each channel, or 11x11x11 over height, width and channels."""
    crop: int = 0
    """Pixels that are cut off at each side before anything is measured."""
    source: str
    """Whose definition it is."""


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="released-y",
            channel="y",
            rounded=False,
            borders="replicate",
            window="2d",
            source="the published code of DiffUIR on all sets but UDC; NAFNet's copy of BasicSR",
        ),
        Protocol(
            name="matlab-y",
            channel="y",
            rounded=True,
            borders="valid",
            window="2d",
            source="MPRNet's evaluate_PSNR_SSIM.m, which deraining papers use, and DiffUIR's eval/SOTS.m",
        ),
        Protocol(
            name="rgb-3d",
            channel="rgb",
            rounded=False,
            borders="replicate",
            window="3d",
            source="the published code of DiffUIR on UDC; NAFNet's copy of BasicSR on RGB",
        ),
        Protocol(
            name="rgb",
            channel="rgb",
            rounded=False,
            borders="valid",
            window="2d",
            source="BasicSR, scikit-image with Wang's settings; what deblurring papers report",
        ),
        Protocol(
            name="gray",
            channel="grey",
            rounded=True,
            borders="valid",
            window="2d",
            source="Wang's ssim_index.m after rgb2gray; quality assessment on TID2013",
        ),
    )
}
"""The protocols by name. Each lies with its figures on the same images in README.md of the core."""

DEFAULT_PROTOCOL: ProtocolName = "released-y"


def find_protocol(protocol: str | Protocol) -> Protocol:
    """Return the protocol of that name, or the protocol itself; raises `UserError` for a name that is none."""
    if isinstance(protocol, Protocol):
        return protocol
    try:
        return PROTOCOLS[protocol]
    except KeyError:
        raise UserError(f"there is no protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}") from None


def luma(pixels: Pixels, rounded: bool = False) -> Planes:
    """Y of ITU-R BT.601 in studio range, as in MATLAB's `rgb2ycbcr`: (H, W) float64 in [16, 235].

    pixels: (H, W, 3) uint8 RGB. Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255; rounded: to whole levels, which
    is what MATLAB returns for a uint8 image.
    """
    levels = LUMA_BLACK + pixels.astype(np.float64) @ np.array(LUMA_WEIGHTS) / PEAK
    return round_half_up(levels) if rounded else levels


def grey(pixels: Pixels, rounded: bool = True) -> Planes:
    """MATLAB's `rgb2gray` of uint8 RGB (H, W, 3): (H, W) float64 in [0, 255], rounded to whole levels or not."""
    levels = pixels.astype(np.float64) @ np.array(GREY_WEIGHTS)
    return round_half_up(levels) if rounded else levels


def round_half_up(levels: Planes) -> Planes:
    """MATLAB's `round` of levels that are not negative: halves go up, where NumPy's go to the even number."""
    return np.floor(levels + 0.5)


def planes_of(pixels: Pixels, protocol: Protocol) -> Planes:
    """Return the levels that `protocol` compares, float64: (H, W) for Y and grey, (H, W, 3) for RGB."""
    crop = protocol.crop
    inside = pixels[crop : pixels.shape[0] - crop, crop : pixels.shape[1] - crop]
    if protocol.channel == "y":
        return luma(inside, protocol.rounded)
    if protocol.channel == "grey":
        return grey(inside, protocol.rounded)
    return inside.astype(np.float64)


def check_photo(pixels: Pixels) -> None:
    """Raise `MetricError` for anything but a uint8 RGB photo (H, W, 3)."""
    if not is_rgb(pixels):
        raise MetricError(f"expected uint8 RGB (H, W, 3), got {pixels.dtype} of shape {pixels.shape}.")


def check_pair(a: Pixels, b: Pixels) -> None:
    """Raise `MetricError` for two images that are not uint8 RGB photos of one size."""
    for image in (a, b):
        check_photo(image)
    if a.shape != b.shape:
        raise MetricError(
            f"the two images differ in size, {size_of(a)} and {size_of(b)} pixels: give two of one size"
        )


def size_of(pixels: Pixels) -> str:
    """The size of an image as text, "640x480": its width and its height."""
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
