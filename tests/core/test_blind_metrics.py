"""NIQE and IL-NIQE give their authors' scores, and their statistics can be fitted to photos of one's own.

Photos and statistics may not be redistributed: scores are compared only where they are at hand.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from diffuir_core.errors import UserError
from diffuir_core.metrics import (
    IL_NIQE_VARIANTS,
    NIQE_VARIANTS,
    Gaussian,
    IlNiqeModel,
    MetricError,
    fit_il_niqe,
    fit_niqe,
    il_niqe,
    il_niqe_samples,
    niqe,
    niqe_samples,
    read_il_niqe,
    read_niqe,
    write_il_niqe,
    write_niqe,
)
from diffuir_core.metrics.resizing import imresize
from diffuir_core.metrics.scene_statistics import generalised_gaussian, weibull
from diffuir_core.pixels import Pixels

# Of "baboon": what the published code of DiffUIR computes, and what MMagic's tests expect.
NIQE = {
    ("niqe-released", "y", 0): (5.85182973, 1e-5),
    ("niqe-released", "y", 6): (6.14434925, 1e-5),
    ("niqe-released", "grey", 0): (5.89767093, 1e-5),
    ("niqe-matlab", "y", 0): (5.72957, 2e-5),
    ("niqe-matlab", "y", 6): (6.10074, 2e-5),
    ("niqe-matlab", "grey", 0): (5.73154, 2e-5),
}
# The authors' scores of five photos of peppers, by their MATLAB code without and with its resize.
PEPPERS = {
    "pepper_0": (38.7078, 29.1422),
    "pepper_1": (36.6869, 36.9637),
    "pepper_2": (28.7137, 29.5075),
    "pepper_3": (92.3750, 78.0557),
    "pepper_4": (46.4926, 46.8697),
}


def open_rgb(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@cache
def textured(seed: int, height: int = 210, width: int = 300) -> Pixels:
    """A drawn picture with detail at every size, as natural photos have it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for side in (3, 6, 12, 25, 50, 100, 200):
        small = rng.standard_normal((side, side, 3))
        total += imresize(small, height, width) / math.sqrt(side)
    total = (total - total.min()) / np.ptp(total)
    return np.asarray((255 * total).round(), dtype=np.uint8)


@pytest.mark.parametrize(("variant", "channel", "crop"), NIQE)
def test_published_niqe(shared: Path, variant: str, channel: str, crop: int) -> None:
    reference = shared / "metric_reference"
    pristine = read_niqe(reference / "niqe" / "niqe_pris_params.npz")
    baboon = open_rgb(reference / "mmagic" / "baboon.png")
    expected, tolerance = NIQE[variant, channel, crop]
    found = niqe(baboon, pristine, variant, channel, crop)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "pepper_3")) for name in PEPPERS]
)
def test_published_il_niqe(shared: Path, name: str) -> None:
    """Within 0.02%: ports that resize otherwise are 1.5 to 10% off."""
    folder = shared / "metric_reference" / "il_niqe"
    model = read_il_niqe(folder / "templateModel.mat")
    pepper = open_rgb(folder / f"{name}.png")
    unresized, official = PEPPERS[name]
    assert il_niqe(pepper, model, "il-niqe-unresized") == pytest.approx(unresized, rel=2e-4)
    assert il_niqe(pepper, model) == pytest.approx(official, rel=2e-4)


@pytest.fixture(scope="module")
def own() -> Gaussian:
    """Statistics of NIQE of drawn pictures."""
    return fit_niqe(niqe_samples(textured(seed, 400, 500)) for seed in range(5))


def test_niqe_fitted_to_photos_finds_them_better_than_blurred_and_noisy_ones(
    own: Gaussian, tmp_path: Path
) -> None:
    write_niqe(tmp_path / "own.npz", own)
    pristine = read_niqe(tmp_path / "own.npz")
    np.testing.assert_array_equal(pristine.mean, own.mean)
    np.testing.assert_array_equal(pristine.covariance, own.covariance)
    fresh = textured(99, 400, 500)
    blurred = np.asarray(Image.fromarray(fresh).filter(ImageFilter.GaussianBlur(2)))
    noisy = np.clip(fresh + np.random.default_rng(0).normal(0, 25, fresh.shape), 0, 255).astype(np.uint8)
    for variant in NIQE_VARIANTS:
        good, *bad = (niqe(image, pristine, variant) for image in (fresh, blurred, noisy))
        assert good < 0.7 * min(bad)


def test_il_niqe_is_fitted_to_photos_and_finds_them_better_than_noisy_ones(tmp_path: Path) -> None:
    samples = [il_niqe_samples(textured(seed, 180, 180), "il-niqe-unresized") for seed in range(5)]
    model = fit_il_niqe(samples, components=8)
    write_il_niqe(tmp_path / "own.npz", model)
    read = read_il_niqe(tmp_path / "own.npz")
    np.testing.assert_array_equal(read.components, model.components)
    # Components are orthonormal, in the order of the variance that they explain.
    np.testing.assert_allclose(model.components.T @ model.components, np.eye(8), atol=1e-9)
    spread = np.diag(model.covariance)
    assert (np.diff(spread) <= 1e-9 * spread[0]).all()
    np.testing.assert_allclose(model.covariance, np.diag(spread), atol=1e-9 * spread[0])
    fresh = textured(99, 180, 180)
    noisy = np.clip(fresh + np.random.default_rng(0).normal(0, 25, fresh.shape), 0, 255).astype(np.uint8)
    scores = [il_niqe(image, read, "il-niqe-unresized") for image in (fresh, noisy)]
    assert scores[0] < scores[1]


def test_too_few_photos_are_refused_with_the_number_of_their_blocks() -> None:
    with pytest.raises(UserError, match="give 0 sharp blocks of 96x96 pixels, and NIQE needs more than 36"):
        fit_niqe([])
    with pytest.raises(UserError, match=r"give \d sharp blocks of 84x84 .* more than 430: add photos"):
        fit_il_niqe([il_niqe_samples(textured(1), "il-niqe-unresized")])


def test_images_that_are_too_small_or_flat_are_refused(own: Gaussian) -> None:
    with pytest.raises(MetricError, match="at least 96x96 pixels, this one is 300x95"):
        niqe(textured(1, 95, 300), own)
    with pytest.raises(MetricError, match="at least 96x96"):
        niqe(textured(1, 110, 300), own, crop=8)
    with pytest.raises(MetricError, match="two blocks of 96x96"):
        niqe(textured(1, 100, 100), own)
    with pytest.raises(MetricError, match="two blocks of 96x96"):
        niqe(np.full((200, 200, 3), 90, np.uint8), own)
    model = IlNiqeModel(
        mean=np.zeros(3), covariance=np.eye(3), centre=np.zeros(468), components=np.ones((468, 3))
    )
    with pytest.raises(MetricError, match="84x84 pixels that is not flat, and this image has none"):
        il_niqe(np.full((90, 90, 3), 90, np.uint8), model, "il-niqe-unresized")
    with pytest.raises(MetricError, match="il-niqe-unresized needs images of at least 84x84 pixels"):
        il_niqe_samples(textured(1, 83, 300), "il-niqe-unresized")
    with pytest.raises(UserError, match=r"no 'niqe': choose one of niqe-matlab, niqe-released"):
        niqe(textured(1), own, "niqe")
    with pytest.raises(UserError, match=f"choose one of {', '.join(IL_NIQE_VARIANTS)}"):
        il_niqe_samples(textured(1), "niqe")


def test_files_of_statistics_that_are_others_are_refused_with_where_they_are_published(
    own: Gaussian, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"there is no .*: it should hold .* of NIQE, such as niqe_pris_params\.npz"
    ):
        read_niqe(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"there is no .*: it should hold .* such as templateModel\.mat"):
        read_il_niqe(tmp_path / "none.mat")
    for name in ("bad.npz", "bad.mat"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
        for read in (read_niqe, read_il_niqe):
            with pytest.raises(UserError, match="can't be read as an npz or mat file"):
                read(tmp_path / name)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match="holds no statistics of NIQE"):
        read_niqe(tmp_path / "other.npz")
    with pytest.raises(UserError, match="holds no statistics of IL-NIQE"):
        read_il_niqe(tmp_path / "other.npz")
    with pytest.raises(UserError, match=r"does not end in \.npz"):
        write_niqe(tmp_path / "own.mat", own)


def test_fitted_distributions_are_those_that_samples_were_drawn_from() -> None:
    rng = np.random.default_rng(0)
    scale, shape = weibull(3.0 * rng.weibull(1.7, (2, 300, 300)))
    np.testing.assert_allclose(scale, 3.0, rtol=0.01)
    np.testing.assert_allclose(shape, 1.7, rtol=0.01)
    shape, left, right = generalised_gaussian(rng.laplace(scale=2.0, size=(2, 300, 300)))
    np.testing.assert_allclose(shape, 1.0, rtol=0.02)
    np.testing.assert_allclose([left, right], 2.0, rtol=0.02)
    shape, left, right = generalised_gaussian(np.ones((1, 4, 4)))
    assert np.isnan(shape).all()


def by_definition(line: list[float], size: int) -> list[float]:
    """MATLAB's imresize of one row, written out."""
    scale = size / len(line)
    shrink = min(scale, 1)

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    mirrored = line[::-1] + line + line[::-1]
    made = []
    for place in range(size):
        centre = (place + 0.5) / scale - 0.5
        weights = [kernel(shrink * (centre - (at - len(line)))) for at in range(len(mirrored))]
        made.append(sum(w * level for w, level in zip(weights, mirrored, strict=True)) / sum(weights))
    return made


@pytest.mark.parametrize("size", [3, 6, 12, 17, 31])
def test_imresize_is_matlabs(size: int) -> None:
    line = np.random.default_rng(size).integers(0, 256, 12)
    expected = by_definition([float(level) for level in line], size)
    np.testing.assert_allclose(imresize(line[None] / 1.0, 1, size)[0], expected, atol=1e-9)
    np.testing.assert_allclose(imresize(line[:, None] / 1.0, size, 1)[:, 0], expected, atol=1e-9)


def test_imresize_of_whole_levels_rounds_after_each_axis_the_more_reduced_one_first() -> None:
    image = np.random.default_rng(1).integers(0, 256, (12, 9, 3), dtype=np.uint8)

    def rounded(levels: np.ndarray) -> np.ndarray:
        return np.floor(np.clip(levels, 0, 255) + 0.5)

    rows_first = rounded(imresize(rounded(imresize(image / 1.0, 20, 9)), 20, 15))
    columns_first = rounded(imresize(rounded(imresize(image / 1.0, 12, 4)), 11, 4))
    assert imresize(image, 20, 15).dtype == np.uint8
    np.testing.assert_array_equal(imresize(image, 20, 15), rows_first)
    np.testing.assert_array_equal(imresize(image, 11, 4), columns_first)
