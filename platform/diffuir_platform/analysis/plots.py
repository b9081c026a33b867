"""The figures of the analyses, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffuir_core.imaging import Pixels

Series = Mapping[str, Mapping[float, tuple[float, float]]]
"""Name -> place on the x axis -> (PSNR in dB, SSIM)."""


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def curves(title: str, x_label: str, series: Series) -> bytes:
    """PSNR and SSIM side by side, a line for each name, over equally spaced values."""
    figure = _figure(12, 5)
    places = sorted({at for values in series.values() for at in values})
    for column, (axes, label) in enumerate(zip(figure.subplots(1, 2), ("PSNR (dB)", "SSIM"), strict=True)):
        for name, values in series.items():
            x = [places.index(at) for at in values]
            axes.plot(x, [values[at][column] for at in values], marker="o", label=name)
        axes.set_xticks(range(len(places)), [f"{at:g}" for at in places])
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(title, fontsize="medium")
    return _png(figure)


def scatters(title: str, clouds: Mapping[str, NDArray[np.float32]], labels: Sequence[str]) -> bytes:
    """Clouds of points (N, 2) side by side, by title, coloured by `labels`, one for each point."""
    figure = _figure(6 * len(clouds), 5.6)
    kinds = list(dict.fromkeys(labels))
    for axes, (name, points) in zip(
        np.atleast_1d(figure.subplots(1, len(clouds))), clouds.items(), strict=True
    ):
        for kind in kinds:
            chosen = points[[label == kind for label in labels]]
            axes.scatter(*chosen.T, s=14, label=kind.replace("_", " "), alpha=0.8)
        axes.set_title(name, fontsize="medium")
        axes.set_xticks([])
        axes.set_yticks([])
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    figure.suptitle(title, fontsize="medium")
    return _png(figure)


def attention_figure(
    title: str,
    degraded: Pixels,
    attention: NDArray[np.float32],
    change: NDArray[np.float32],
    restored: Pixels,
) -> bytes:
    """The image, the attention over it, the change that the network makes, and the result, side by side."""
    height, width = degraded.shape[:2]
    figure = _figure(16, 16 / 4 * height / width + 0.9)
    grey = degraded.mean(axis=-1)
    shown = {
        "multi-degraded image": None,
        "attention of the feature map": attention,
        "change that is made": change,
        "result": None,
    }
    for axes, (name, values) in zip(figure.subplots(1, 4), shown.items(), strict=True):
        if values is None:
            axes.imshow(restored if name == "result" else degraded)
        else:
            low, high = np.percentile(values, (2, 98))
            axes.imshow(grey, cmap="gray")
            axes.imshow(values, cmap="inferno", vmin=low, vmax=high, alpha=0.75)
        axes.set_title(name, fontsize="medium")
        axes.set_axis_off()
    figure.suptitle(title, fontsize="medium")
    return _png(figure)
