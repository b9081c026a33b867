"""Make the files of this folder from the full arrays: python tests/core/golden/make.py FOLDER (README.md)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden_cases import CASES, HERE, PREFIX, drawn, summary

SUMMARISED = ("unet_out", "start", "iterates", "train_xt")
SCHEDULE = ("alphas_cumsum", "betas_cumsum", "delta_cumsum", "alphas", "betas2", "delta")


def write(name: str, entries: dict[str, Any]) -> None:
    """Write a JSON object with one entry on each line."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    """Read the arrays, check that the random inputs follow from their seeds, and write the summaries."""
    folder = Path(sys.argv[1])
    for name, case in CASES.items():
        arrays = dict(np.load(folder / f"golden_{name}.npz"))
        for key in case.draws:
            if not np.array_equal(drawn(case, key, arrays[key].shape), arrays[key]):
                raise SystemExit(f"{key} of {name} is not the draw of its seed: correct golden_cases.py")
        for key in ("clean", "degraded"):
            Image.fromarray(arrays[key]).save(HERE / f"{name}_{key}.png", optimize=True)
        exact = {key: arrays[key].tolist() for key in ("steps", "unet_time", "train_t", "train_loss")}
        write(name, exact | {key: summary(arrays[key]) for key in SUMMARISED})
    schedule = np.load(folder / "schedule_release.npz")
    write("schedule_release", {key: summary(schedule[key]) for key in SCHEDULE})
    checkpoint = torch.load(folder / "model-300.pt", weights_only=True)
    buffers = [key for key in checkpoint["model"] if not key.startswith(PREFIX)]
    parameters = {
        key.removeprefix(PREFIX): list(value.shape)
        for key, value in checkpoint["model"].items()
        if key.startswith(PREFIX)
    }
    write("checkpoint_T", {"buffers": buffers, "parameters": parameters})


if __name__ == "__main__":
    main()
