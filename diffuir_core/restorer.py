"""Images in, images out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from .sampling import sample
from .weights import open_weights

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Restorer:
    """Restores uint8 photos with one set of weights.

    weights: a file as `load_weights` takes it, None for those that ship. device: "auto" (a GPU where there is
    one), or a torch device. precision: "float32", "bfloat16", or "auto" (bfloat16 on a GPU, else float32). steps:
    DDIM steps, 1 .. 1000. seed: with the image's own content, what its noise is drawn from.

    Raises `UserError` for weights that can't be used, `ValueError` for the other arguments.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        device: str = "auto",
        precision: str = "auto",
        steps: int = 3,
        seed: int = 0,
    ) -> None:
        if not 1 <= steps <= 1000:
            raise ValueError(f"steps is {steps}: it must lie in 1 .. 1000")
        if precision not in ("auto", *PRECISIONS):
            raise ValueError(f"precision is {precision!r}: choose auto, {' or '.join(PRECISIONS)}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "auto":
            precision = "bfloat16" if device.startswith("cuda") else "float32"
        opened = open_weights(weights)
        self.device = torch.device(device)
        self.precision = precision
        self.steps = steps
        self.seed = seed
        self.model = opened.model.to(self.device)
        self.schedule = opened.schedule.to(self.device)

    def restore(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """uint8 (H, W, 3) RGB arrays of any sizes -> restored ones of the same shapes, in the same order.

        Each image is run by itself, so its result does not depend on the others. Raises `ValueError` for an array
        that is not uint8 (H, W, 3).
        """
        return [self._restore_one(image) for image in images]

    def _restore_one(self, image: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"an image must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
        pixels = torch.from_numpy(np.ascontiguousarray(image))
        degraded = pixels.permute(2, 0, 1)[None].to(self.device).float() / 255.0
        noise = content_noise(image, self.seed).to(self.device)
        low_precision = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if low_precision else nullcontext():
            restored = sample(self.model, degraded, self.steps, noise, self.schedule)
        return (restored[0] * 255.0).round_().clamp_(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def content_noise(image: np.ndarray, seed: int) -> Tensor:
    """The (1, 3, H, W) standard normal draw that belongs to this image under this seed.

    Drawn on the CPU from a hash of (seed, shape, pixels): the same wherever and with whatever the image is
    restored.
    """
    digest = hashlib.blake2b(f"{seed}:{image.shape}".encode(), digest_size=8)
    digest.update(np.ascontiguousarray(image).data)
    generator = torch.Generator().manual_seed(int.from_bytes(digest.digest(), "big", signed=True))
    return torch.randn((1, 3, *image.shape[:2]), generator=generator)
