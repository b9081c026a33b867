"""Analyses that restore pairs: sampling steps (Appendix D), and panels like Figures 2 to 4 and 6."""

from __future__ import annotations

import io
from pathlib import Path
from statistics import fmean

from diffuir_core import Restorer
from diffuir_core.contact_sheet import SheetRow, contact_sheet
from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels
from diffuir_core.metrics import mean_psnr, psnr, ssim

from ..data.pairs import Pair, find_pairs
from ..inference import RestorerName, RestoresPixels, fetch_model, fetch_weights, load_restorer, restore_each
from .network import load
from .plots import curves
from .settings import AnalyseSettings


def _pairs(settings: AnalyseSettings, most: int) -> dict[str, list[Pair]]:
    """The first pairs of each set, by the set's name."""
    found: dict[str, list[Pair]] = {}
    for pair in find_pairs(Path(settings.source)):
        members = found.setdefault(pair.set_name, [])
        if len(members) < most:
            members.append(pair)
    return found


def _diffuir(settings: AnalyseSettings, steps: int | None = None) -> Restorer:
    with fetch_weights(settings.weights).as_file() as file:
        return Restorer(
            file, device=settings.device, precision="float32", steps=steps, seed=settings.seed, guard=False
        )


def steps_plot(settings: AnalyseSettings) -> tuple[bytes, dict[str, str]]:
    """PSNR and SSIM of each set over the number of sampling steps, as PNG, and the best number of each set."""
    sets = {
        name: [(load(pair.degraded), load(pair.clean)) for pair in pairs]
        for name, pairs in _pairs(settings, settings.images).items()
    }
    series: dict[str, dict[float, tuple[float, float]]] = {name: {} for name in sets}
    for steps in sorted(set(settings.counts)):
        restorer = _diffuir(settings, steps)
        for name, pairs in sets.items():
            made = [(restorer.restore([degraded])[0], clean) for degraded, clean in pairs]
            series[name][steps] = (
                mean_psnr(psnr(*pair, settings.protocol) for pair in made).value,
                fmean(ssim(*pair, settings.protocol) for pair in made),
            )
    best = {name: max(values, key=lambda steps: values[steps][0]) for name, values in series.items()}
    scores = {name: f"best at {at:g} steps, {series[name][at][0]:.2f} dB" for name, at in best.items()}
    title = f"Sampling steps, {settings.protocol}, means over up to {settings.images} pairs of each set"
    return curves(title, "sampling steps", series), scores


def panels(settings: AnalyseSettings) -> tuple[bytes, dict[str, str]]:
    """A row for the first pair of each set, as PNG: degraded, DiffUIR, each other restorer, truth."""
    others = {RestorerName.parse(name).title: _other(name, settings) for name in settings.restorers}
    diffuir = _diffuir(settings)
    rows, scores = [], {}
    for name, (pair, *_) in _pairs(settings, 1).items():
        degraded, clean = load(pair.degraded), load(pair.clean)
        made: dict[str, Pixels] = {"degraded": degraded, "DiffUIR": diffuir.restore([degraded])[0]}
        for title, other in others.items():
            (result,) = restore_each(other, [degraded], (f"{pair.set_name}/{pair.key}",))
            if isinstance(result, str):
                raise UserError(f"{pair.set_name}/{pair.key}: {result}")
            made[title] = result.pixels
        captions = {title: _caption(title, image, clean, settings) for title, image in made.items()}
        heading = name.replace("_", " ").capitalize()
        rows.append(
            SheetRow(images=[*made.values(), clean], captions=[*captions.values(), "truth"], heading=heading)
        )
        scores[name] = "; ".join(captions.values())
    file = io.BytesIO()
    contact_sheet(rows, f"PSNR by {settings.protocol}").save(file, "PNG")
    return file.getvalue(), scores


def _other(name: str, settings: AnalyseSettings) -> RestoresPixels:
    with fetch_model(name, None).as_file() as file:
        return load_restorer(name, file, device=settings.device)


def _caption(title: str, image: Pixels, clean: Pixels, settings: AnalyseSettings) -> str:
    return f"{title}: {psnr(image, clean, settings.protocol):.2f} dB"
