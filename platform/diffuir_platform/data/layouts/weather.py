"""Layouts of rain, snow and haze."""

from __future__ import annotations

from .layout import Layout, Part, paired_folders

RAIN_TESTS = ("Test100", "Rain100H", "Rain100L", "Test2800", "Test1200")

RAIN13K = Layout(
    "rain13k",
    "Rain13K and its five test sets (the release of MPRNet)",
    (
        paired_folders(
            "rain", "Rain13K", "train", "(train/(Rain13K/)?|Rain13K/(train/)?)", "input", "target"
        ),
        *(
            paired_folders("rain", name, "test", f"(**/test/)?{name}/", "input", "target")
            for name in RAIN_TESTS
        ),
    ),
)

PRACTICAL = Layout(
    "practical",
    "real rain without ground truth, in any folders",
    (Part(task="rain", dataset="Practical", split="test", degraded="{path}"),),
)

SNOW100K = Layout(
    "snow100k",
    "Snow100K as its archives unpack: training, the test sets S, M and L, and the realistic photos",
    (
        paired_folders("snow", "Snow100K", "train", "**/(train|all)/", "synthetic", "gt"),
        paired_folders("snow", "Snow100K", "test", "**/test/", "synthetic", "gt"),
        *(
            paired_folders(
                "snow", f"Snow100K-{size}", "test", f"(**/test/)?Snow100K-{size}/", "synthetic", "gt"
            )
            for size in "SML"
        ),
        Part(task="snow", dataset="Snow100K-real", split="test", degraded="**/realistic/{name}"),
    ),
)


def before_underscore(key: str) -> str:
    """Return the id of the clean photo, 0001_0.8_0.2 -> 0001: airlight and scattering follow it."""
    return key.partition("_")[0]


RESIDE = Layout(
    "reside",
    "RESIDE: OTS (of v0, which is ALPHA, or BETA) and SOTS outdoor",
    (
        Part(
            task="haze",
            dataset="OTS",
            split="train",
            degraded="(OTS|OTS_ALPHA|OTS_BETA)/(hazy|haze)/**/{name}",
            clean="(OTS|OTS_ALPHA|OTS_BETA)/clear/**/{name}",
            twin=before_underscore,
        ),
        Part(
            task="haze",
            dataset="SOTS-outdoor",
            split="test",
            degraded="(SOTS/)?outdoor/hazy/{name}",
            clean="(SOTS/)?outdoor/(gt|clear)/{name}",
            twin=before_underscore,
        ),
    ),
)
