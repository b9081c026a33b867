"""Anybody's own folders: task, data set and split are said with the command."""

from __future__ import annotations

from .layout import ANY_TASK, Layout, Part

PAIRS = Layout(
    "pairs",
    "any pairs of the same names; with --task, and --dataset and --split if wanted",
    (Part(task="", dataset="", split="train", degraded="degraded/{path}", clean="clean/{path}"),),
    named_by_user=True,
)
UNPAIRED = Layout(
    "unpaired",
    "any degraded photos without ground truth; with --task, and --dataset and --split if wanted",
    (Part(task="", dataset="", split="test", degraded="{path}"),),
    named_by_user=True,
)
CLEAN = Layout(
    "clean",
    "any clean photos, to be degraded on the fly; with --dataset and --split if wanted",
    (Part(task=ANY_TASK, dataset="", split="train", clean="{path}"),),
    named_by_user=True,
)
