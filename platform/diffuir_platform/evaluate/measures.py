"""What an evaluation measures: each metric under a named definition, and the files that some of them need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels
from diffuir_core.metrics import (
    IL_NIQE_VARIANTS,
    LOE_VARIANTS,
    NIQE_VARIANTS,
    IlNiqeModel,
    il_niqe,
    loe,
    niqe,
    psnr,
    read_il_niqe,
    read_niqe,
    ssim,
)
from diffuir_core.metrics.scene_statistics import Gaussian

if TYPE_CHECKING:
    from diffuir_core.metrics.lpips import Lpips

_lpips_lock = Lock()


@dataclass(frozen=True, order=True)
class Measure:
    """A metric under one of its definitions, which every figure carries."""

    metric: str
    """A name of `METRICS`."""
    protocol: str
    """Name of the definition: "released-y" of a PSNR, "niqe-matlab" of a NIQE."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Properties of a metric, whatever its definition."""

    title: str
    """Name in tables."""
    digits: int
    """Digits after the point in tables."""
    rises: bool
    """Whether higher is better."""
    needs_truth: bool
    """Whether it compares with the truth."""
    has_before: bool = True
    """Whether the degraded photo by itself has a value; LOE compares the result with it."""
    files: tuple[str, ...] = ()
    """Settings that name the files it needs."""


METRICS = {
    "psnr": Metric(title="PSNR", digits=2, rises=True, needs_truth=True),
    "ssim": Metric(title="SSIM", digits=4, rises=True, needs_truth=True),
    "lpips": Metric(
        title="LPIPS", digits=4, rises=False, needs_truth=True, files=("lpips_backbone", "lpips_linear")
    ),
    "niqe": Metric(title="NIQE", digits=3, rises=False, needs_truth=False, files=("niqe",)),
    "il-niqe": Metric(title="IL-NIQE", digits=3, rises=False, needs_truth=False, files=("il_niqe",)),
    "loe": Metric(title="LOE", digits=2, rises=False, needs_truth=False, has_before=False),
}
"""The metrics by name, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class Photos:
    """The photos of one image that are measured, uint8 (H, W, 3) RGB of one size; clean: None without a truth."""

    degraded: Pixels
    restored: Pixels
    clean: Pixels | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measure of one image: its value before, of the degraded photo (None where it has none), and after."""

    measure: Measure
    before: float | None
    after: float


@dataclass(frozen=True, kw_only=True)
class Meter:
    """Measures photos. Each setting is the file that a metric needs; without it, the metric can't be measured."""

    niqe: Path | None = None
    il_niqe: Path | None = None
    lpips_backbone: Path | None = None
    lpips_linear: Path | None = None

    def lacks(self, measure: Measure) -> str | None:
        """Return a sentence about the files that a measure lacks; None where it can be measured."""
        metric = METRICS[measure.metric]
        missing = [_option(name) for name in metric.files if getattr(self, name) is None]
        return (
            f"{metric.title} is not measured: name its files with {' and '.join(missing)}"
            if missing
            else None
        )

    def measured(self, measures: Iterable[Measure]) -> tuple[Measure, ...]:
        """Return those of `measures` that can be measured, in the order of METRICS and then their own."""
        order = list(METRICS)
        able = [measure for measure in measures if self.lacks(measure) is None]
        return tuple(sorted(able, key=lambda measure: order.index(measure.metric)))

    def check(self, measures: Iterable[Measure]) -> None:
        """Load the files of these measures; raises `UserError` for one that is missing or another file."""
        for measure in set(measures):
            if measure.metric == "lpips":
                self._lpips(measure.protocol)
            elif measure.metric in ("niqe", "il-niqe"):
                getattr(self, f"_{measure.metric.replace('-', '_')}_model")

    def hashes(self) -> dict[str, str]:
        """Return {setting: SHA-256 of its file} of the files that are named."""
        return {
            name: hashlib.sha256(file.read_bytes()).hexdigest()
            for name in ("niqe", "il_niqe", "lpips_backbone", "lpips_linear")
            if (file := getattr(self, name)) is not None and file.is_file()
        }

    def score(self, measure: Measure, photos: Photos) -> Score:
        """Measure the photos of an image; raises `MetricError` for those that it can't be measured of."""
        if measure.metric == "loe":
            value = loe(photos.restored, photos.degraded, measure.protocol)
            return Score(measure=measure, before=None, after=value)
        of = self._function(measure, photos.clean)
        return Score(measure=measure, before=of(photos.degraded), after=of(photos.restored))

    def _function(self, measure: Measure, clean: Pixels | None) -> Callable[[Pixels], float]:
        protocol = measure.protocol
        if measure.metric == "niqe":
            return lambda pixels: niqe(pixels, self._niqe_model, protocol)
        if measure.metric == "il-niqe":
            return lambda pixels: il_niqe(pixels, self._il_niqe_model, protocol)
        if clean is None:
            raise UserError(f"{METRICS[measure.metric].title} compares with a truth, and there is none")
        if measure.metric == "lpips":
            return lambda pixels: self._distance(pixels, clean, protocol)
        function = psnr if measure.metric == "psnr" else ssim
        return lambda pixels: function(pixels, clean, protocol)

    @cached_property
    def _niqe_model(self) -> Gaussian:
        assert self.niqe is not None
        return read_niqe(self.niqe)

    @cached_property
    def _il_niqe_model(self) -> IlNiqeModel:
        assert self.il_niqe is not None
        return read_il_niqe(self.il_niqe)

    @cached_property
    def _lpips_models(self) -> dict[str, Lpips]:
        return {}

    def _distance(self, pixels: Pixels, clean: Pixels, variant: str) -> float:
        from diffuir_core.metrics.lpips import lpips

        with _lpips_lock:  # one at a time: it takes gigabytes, and all cores by itself
            return lpips(pixels, clean, self._lpips(variant))

    def _lpips(self, variant: str) -> Lpips:
        from diffuir_core.metrics.lpips import load_lpips

        if variant not in self._lpips_models:
            assert self.lpips_backbone is not None
            assert self.lpips_linear is not None
            self._lpips_models[variant] = load_lpips(variant, self.lpips_backbone, self.lpips_linear)
        return self._lpips_models[variant]


def fidelity(*protocols: str) -> tuple[Measure, ...]:
    """Return PSNR and SSIM by each of these protocols."""
    return tuple(Measure(metric, protocol) for protocol in protocols for metric in ("psnr", "ssim"))


def blind(*metrics: str) -> tuple[Measure, ...]:
    """Return these metrics, of "niqe", "il-niqe" and "loe", by every definition that circulates."""
    variants: dict[str, Iterable[str]] = {
        "niqe": NIQE_VARIANTS,
        "il-niqe": IL_NIQE_VARIANTS,
        "loe": LOE_VARIANTS,
    }
    return tuple(Measure(metric, variant) for metric in metrics for variant in variants[metric])


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
