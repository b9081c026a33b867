"""Layouts of low light, with ground truth and without."""

from __future__ import annotations

from .layout import Layout, Part, paired_folders

LOL = Layout(
    "lol",
    "LOL, our485 and eval15",
    (
        paired_folders("low_light", "LOL", "train", "(our485|train)/", "low", "high"),
        paired_folders("low_light", "LOL", "test", "(eval15|test)/", "low", "high"),
    ),
)

LOW_LIGHT_REAL = Layout(
    "low-light-real",
    "MEF, NPE, DICM and LIME, without ground truth, a folder each",
    tuple(
        Part(task="low_light", dataset=name, split="test", degraded=f"{name}/{{path}}")
        for name in ("DICM", "LIME", "MEF", "NPE")
    ),
)
