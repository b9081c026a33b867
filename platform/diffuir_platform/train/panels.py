"""Sample panels: one image per task, restored with the averaged weights; the same images all through a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from diffuir_core import Schedule, UNet, sample
from diffuir_core.contact_sheet import SheetRow, contact_sheet
from diffuir_core.degradations import TASKS

from ..data import Mixture, Source, load_or_replace
from ..data.mixture import Slot

CROP = 192
"""Side of the square crops, pixels."""


def sample_panel(
    model: UNet, schedule: Schedule, mixture: Mixture, sources: Mapping[str, Sequence[Source]]
) -> Image.Image:
    """Return a contact sheet with degraded, restored and clean side by side, a row for each trained task."""
    rows = []
    for task in (task for task in TASKS if mixture.quotas[0].get(task)):
        slot = Slot(task, 0, seed=mixture.seed)
        loaded = load_or_replace(slot, sources[task], CROP)
        device = next(model.parameters()).device
        degraded = torch.from_numpy(loaded.degraded).permute(2, 0, 1)[None].to(device).float() / 255.0
        noise = torch.randn(degraded.shape, generator=torch.Generator().manual_seed(mixture.seed)).to(device)
        restored = sample(model, degraded, noise=noise, schedule=schedule)[0].permute(1, 2, 0)
        pixels = (restored * 255).round().byte().cpu().numpy().astype(np.uint8)
        images = (loaded.degraded, pixels, loaded.clean)
        captions = ("degraded", "restored", "clean")
        rows.append(SheetRow(images=images, captions=captions, heading=task.replace("_", " ")))
    return contact_sheet(rows)
