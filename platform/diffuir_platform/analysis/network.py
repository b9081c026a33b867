"""Figures 5 and 7: features of the diffusion's end point, and the attention over a photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffuir_core import Restorer, Schedule, UNet, Weights
from diffuir_core.allocator import keep_freed_memory
from diffuir_core.degradations import TASKS, degrade
from diffuir_core.errors import UserError
from diffuir_core.features import attention_map, end_point_features
from diffuir_core.imaging import ImageError, Pixels, decode
from diffuir_core.restorer import as_signal, content_noise
from diffuir_core.unet import MULTIPLE

from .. import storage
from ..data.pairs import DEGRADED, find_pairs, images_in
from ..inference import fetch_weights
from .plots import attention_figure, scatters
from .settings import AnalyseSettings

CROP = 128
"""Side of the crops whose features are taken, pixels."""
BATCH = 16
"""Crops that go through the network together."""
CPU = torch.device("cpu")


def load(path: Path | str) -> Pixels:
    """A picture as a restore decodes it, uint8 (H, W, 3) RGB; raises `UserError`, which names it."""
    try:
        return decode(storage.read_bytes(str(path))).pixels
    except ImageError as error:
        raise UserError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Separability:
    """Scores of how far apart the features of crops of different tasks are."""

    silhouette: float
    """Mean silhouette coefficient (Rousseeuw 1987), -1 .. 1: 0 or less where tasks are mixed."""
    nearest: float
    """Share of crops whose nearest neighbour, of another photo, is of the same task."""
    chance: float
    """Expected value of `nearest` if all tasks were one distribution."""

    def __str__(self) -> str:
        return (
            f"silhouette {self.silhouette:.2f}, nearest neighbour of the same task {self.nearest:.0%} "
            f"(chance {self.chance:.0%})"
        )


def separability(features: NDArray[np.float32], labels: Sequence[str], photos: Sequence[int]) -> Separability:
    """Score features (N, C), each channel scaled to unit variance; photos: number of the photo of each crop."""
    from sklearn.metrics import pairwise_distances, silhouette_score

    scaled = standardised(features)
    kinds, numbers = np.asarray(labels), np.asarray(photos)
    distances = pairwise_distances(scaled)
    is_other = numbers[:, None] != numbers
    nearest = np.where(is_other, distances, np.inf).argmin(axis=1)
    same = kinds[:, None] == kinds
    return Separability(
        silhouette=float(silhouette_score(scaled, kinds)),
        nearest=float((kinds[nearest] == kinds).mean()),
        chance=float(((same & is_other).sum(axis=1) / is_other.sum(axis=1)).mean()),
    )


def standardised(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (N, C) with zero mean and unit variance in each channel; one that does not vary becomes 0."""
    return np.asarray((features - features.mean(axis=0)) / (features.std(axis=0) + 1e-8), dtype=np.float32)


def features_plot(settings: AnalyseSettings) -> tuple[bytes, dict[str, str]]:
    """Figure 5 as PNG, and the scores of each end point as text; raises `UserError` for too few photos.

    Without weights that were trained without SDT both end points go through one network, and the title says so.
    """
    from sklearn.manifold import TSNE

    crops = list(_crops(settings))
    labels, photos = [task for task, *_ in crops], [number for _, number, *_ in crops]
    if len(set(labels)) < 2 or len(set(photos)) < 2:
        raise UserError(
            f"{settings.source} has {len(set(photos))} photos of {CROP}x{CROP} or more and {len(set(labels))} "
            "tasks: give two of each"
        )
    keep_freed_memory()
    shared = fetch_weights(settings.weights).open()
    schedule = Schedule.release(shared.schedule.delta_end, "no-sdt")
    alone = replace(shared, schedule=schedule)
    if settings.without_sdt is not None:
        alone = fetch_weights(settings.without_sdt).open()
    clouds, scores = {}, {}
    for name, weights in (("without SDT", alone), ("with SDT", shared)):
        features = _features(weights, [pair for *_, pair in crops], settings.seed)
        score = separability(features, labels, photos)
        perplexity = min(30.0, (len(crops) - 1) / 3)
        points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(standardised(features))
        delta = float(weights.schedule.delta_bar[-1])
        clouds[f"{name} (delta_bar_T = {delta:.2f})\n{score}"], scores[name] = points, str(score)
    how = "one network for both" if settings.without_sdt is None else "each by its own network"
    return scatters(f"Features of the diffusion's end point, t-SNE; {how}", clouds, labels), scores


def _crops(settings: AnalyseSettings) -> Iterator[tuple[str, int, tuple[Pixels, Pixels]]]:
    """Yield (task, number of the photo, (degraded, clean)) for the crops of each photo."""
    rng = np.random.default_rng(settings.seed)
    for task, number, degraded, clean in _scenes(settings):
        height, width = clean.shape[:2]
        if min(height, width) < CROP or degraded.shape != clean.shape:
            continue
        for _ in range(settings.crops):
            top, left = rng.integers(height - CROP + 1), rng.integers(width - CROP + 1)
            window = (slice(top, top + CROP), slice(left, left + CROP))
            yield task, number, (degraded[window], clean[window])


def _scenes(settings: AnalyseSettings) -> Iterator[tuple[str, int, Pixels, Pixels]]:
    """Yield (task, number of the photo, degraded, clean): pairs, or clean photos degraded for every task."""
    folder = Path(settings.source)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one of pairs, or of clean photos")
    if (folder / DEGRADED).is_dir() or any(folder.glob(f"*/{DEGRADED}")):
        seen: dict[str, int] = {}
        for number, pair in enumerate(find_pairs(folder)):
            seen[pair.set_name] = seen.get(pair.set_name, 0) + 1
            if seen[pair.set_name] <= settings.images:
                yield pair.set_name, number, load(pair.degraded), load(pair.clean)
        return
    for number, photo in enumerate(images_in(folder)):
        clean = load(photo)
        for task in TASKS:
            yield task, number, degrade(task, clean, settings.seed + number), clean


def _features(weights: Weights, pairs: Sequence[tuple[Pixels, Pixels]], seed: int) -> NDArray[np.float32]:
    taken = []
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        degraded, clean = (torch.stack([as_signal(pair[side], CPU) for pair in batch]) for side in (0, 1))
        noise = torch.cat([content_noise(pair[0], seed) for pair in batch])
        taken.append(end_point_features(weights.model, weights.schedule, clean, degraded, noise))
    return torch.cat(taken).numpy()


def attention_plot(settings: AnalyseSettings) -> tuple[bytes, dict[str, str]]:
    """Figure 7 as PNG, and its figure: how far attention and change go together."""
    from scipy.stats import spearmanr

    photo = load(settings.source)
    height, width = (side // MULTIPLE * MULTIPLE for side in photo.shape[:2])
    if not height or not width:
        raise UserError(f"{settings.source} is smaller than {MULTIPLE}x{MULTIPLE}: take a larger photo")
    photo = np.ascontiguousarray(photo[:height, :width])
    fetched = fetch_weights(settings.weights)
    with fetched.as_file() as file:
        restorer = Restorer(
            file, device=settings.device, precision="float32", seed=settings.seed, guard=False
        )
    (restored,) = restorer.restore([photo])
    weights = fetched.open()
    attention = _attention(weights.model, weights.schedule, photo, settings.seed)
    change = np.abs(photo.astype(np.float32) - restored).mean(axis=-1)
    most = change >= np.quantile(change, 0.75)
    correlation = float(spearmanr(attention.ravel(), change.ravel()).statistic)
    share = float(attention[most].sum() / attention.sum())
    scores = {
        "rank correlation of attention and change": f"{correlation:.2f}",
        "share of the attention on the most changed quarter": f"{share:.0%} (25% if it were even)",
    }
    title = "; ".join(f"{name}: {value}" for name, value in scores.items())
    return attention_figure(title, photo, attention, change, restored), scores


def _attention(model: UNet, schedule: Schedule, photo: Pixels, seed: int) -> NDArray[np.float32]:
    degraded: Tensor = as_signal(photo, CPU)[None]
    return attention_map(model, schedule, degraded, content_noise(photo, seed))[0].numpy()
