"""Sample panels: what the averaged weights make of one image per task, the same ones all through a run."""

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


def sample_panel(
    model: UNet, schedule: Schedule, mixture: Mixture, sources: Mapping[str, Sequence[Source]]
) -> Image.Image:
    """Degraded, restored, clean side by side, a row for each task that is trained."""
    rows = []
    for task in (task for task in TASKS if mixture.quotas[0].get(task)):
        slot = Slot(task, 0, seed=mixture.seed)
        shown = load_or_replace(slot, sources[task], CROP)
        device = next(model.parameters()).device
        signal = torch.from_numpy(shown.degraded).permute(2, 0, 1)[None].to(device).float() / 255.0
        noise = torch.randn(signal.shape, generator=torch.Generator().manual_seed(mixture.seed)).to(device)
        restored = sample(model, signal, noise=noise, schedule=schedule)[0].permute(1, 2, 0)
        pixels = (restored * 255).round().byte().cpu().numpy().astype(np.uint8)
        images = (shown.degraded, pixels, shown.clean)
        captions = ("degraded", "restored", "clean")
        rows.append(SheetRow(images=images, captions=captions, heading=task.replace("_", " ")))
    return contact_sheet(rows)
