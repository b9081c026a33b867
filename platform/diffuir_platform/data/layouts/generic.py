"""Layouts of a user's own folders: task, data set and split come from the command."""

from __future__ import annotations

from .layout import ANY_TASK, Layout, Part

PAIRS = Layout(
    "pairs",
    "any pairs with the same names; needs --task, takes --dataset and --split",
    (Part(task="", dataset="", split="train", degraded="degraded/{path}", clean="clean/{path}"),),
    named_by_user=True,
)
UNPAIRED = Layout(
    "unpaired",
    "any degraded photos without ground truth; needs --task, takes --dataset and --split",
    (Part(task="", dataset="", split="test", degraded="{path}"),),
    named_by_user=True,
)
CLEAN = Layout(
    "clean",
    "any clean photos, to be degraded on the fly; takes --dataset and --split",
    (Part(task=ANY_TASK, dataset="", split="train", clean="{path}"),),
    named_by_user=True,
)
