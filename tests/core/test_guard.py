"""The guard: implausible changes of good pictures are left out, restorations stay whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core import Restorer, Schedule, UNet, save_weights
from diffuir_core.degradations import TASKS, degrade
from diffuir_core.equalise import equalise_histogram
from diffuir_core.guard import judge
from diffuir_core.metrics import psnr
from diffuir_core.pixels import Pixels
from diffuir_core.restorer import interpolate
from support.drawn_pictures import KINDS

HEIGHT, WIDTH = 200, 300
GROUNDLESS = sorted(set(KINDS) - {"fence", "trunks", "spokes", "grass"})
"""Kinds of pictures whose detail speaks against any change of level."""


def drawn(kind: str, seed: int = 40) -> Pixels:
    return KINDS[kind](seed, HEIGHT, WIDTH)


def shifted(picture: Pixels, by: int = 0) -> Pixels:
    """The picture with all levels moved towards middle grey, as the network does with what it takes for dark or
    for haze, or moved by `by`."""
    by = by or (60 if picture.mean() < 128 else -60)
    return np.clip(picture.astype(int) + by, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", GROUNDLESS)
def test_a_change_of_level_without_contrast_is_left_out(kind: str) -> None:
    for seed in (40, 41, 42):
        picture = drawn(kind, seed)
        verdict = judge(picture, shifted(picture))
        assert verdict.share == 0, (kind, seed, verdict)
        assert verdict.note is not None
        assert verdict.note.startswith("the model's change was implausible for ")
        assert verdict.note.endswith(": the photo is left as it was (guard=off makes all of it)")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_a_true_restoration_is_made_in_full(task: str, name: str) -> None:
    clean = getattr(pytest.importorskip("skimage.data"), name)()
    for seed in range(4):
        degraded = degrade(task, clean, seed)
        verdict = judge(degraded, clean)
        if psnr(degraded, clean) < 42:  # else it is hardly degraded
            assert (verdict.share, verdict.note) == (1, None), (seed, verdict)


def test_a_fence_is_no_rain() -> None:
    for seed in (40, 41, 42):
        fence = KINDS["fence"](seed, 320, 480)
        blurred = Image.fromarray(fence).resize((48, 32), Image.Resampling.BOX).resize((480, 320))
        verdict = judge(fence, np.minimum(fence, np.asarray(blurred)))
        assert verdict.share < 0.1
        assert "such as a fence" in str(verdict.note)


def test_upright_rain_is_removed(photo: Pixels) -> None:
    """Streaks of a fifth of the picture's height, all upright."""
    clean = np.asarray(Image.fromarray(photo).resize((480, 320), Image.Resampling.BICUBIC))
    rng = np.random.default_rng(0)
    rainy = clean.copy()
    for top, column in rng.integers((-60, 0), (320, 480), (900, 2)):
        streak = rainy[max(0, top) : top + 64, column]
        streak[:] = np.minimum(streak + 90.0, 255)
    assert judge(rainy, clean).share == 1


def test_a_dark_photo_with_bright_lamps_is_brightened(photo: Pixels) -> None:
    dark = (photo * 0.12).astype(np.uint8)
    restored = np.clip(dark.astype(np.float32) * 5, 0, 255).astype(np.uint8)
    dark[20:32, 40:52] = restored[20:32, 40:52] = 255
    assert judge(dark, restored).share == 1


def test_a_change_that_nobody_sees_is_no_matter() -> None:
    white = drawn("flat", seed=0)
    assert judge(white, white - 1 + np.eye(HEIGHT, WIDTH, dtype=np.uint8)[..., None]).note is None


@pytest.mark.parametrize("scale", [2, 5])
@pytest.mark.parametrize("kind", ["text_on_white", "night_sky", "flat", "screenshot"])
def test_the_size_of_a_picture_does_not_matter(kind: str, scale: int) -> None:
    """Enlarged without new detail, as a camera of more pixels sees it."""
    large = drawn(kind).repeat(scale, 0).repeat(scale, 1)
    assert judge(large, shifted(large)).share == 0


@pytest.mark.parametrize("scale", [2, 5])
@pytest.mark.parametrize("task", TASKS)
def test_the_size_of_a_photo_does_not_matter(task: str, scale: int, photo: Pixels) -> None:
    large = np.asarray(Image.fromarray(photo).resize((240 * scale, 160 * scale), Image.Resampling.BICUBIC))
    assert judge(degrade(task, large, 1), large).share == 1


def test_grey_pictures_are_judged_as_coloured_ones() -> None:
    page = drawn("scan").mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
    assert judge(page, shifted(page)).share == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 3), (5, 5), (16, 16), (33, 7), (1, 2000)])
def test_any_size_can_be_judged(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for picture in (noise, np.full_like(noise, 255), np.zeros_like(noise)):
        assert 0 <= judge(picture, shifted(picture)).share <= 1


def test_a_grey_level_more_or_less_changes_the_result_by_about_as_much(photo: Pixels) -> None:
    """Guarantee 1: another machine's arithmetic differs by a grey level, also where the guard is undecided."""
    rng = np.random.default_rng(0)
    undecided = 0
    for columns in range(20, 200, 12):
        hazy = np.full((160, 240, 3), 205, np.uint8)
        hazy[:, :columns] = 205 + 0.3 * (photo[:, :columns].astype(np.float32) - 128)
        restored = np.clip(hazy.astype(np.float32) * 1.7 - 180, 0, 255).astype(np.uint8)
        other = np.clip(restored + rng.integers(-1, 2, hazy.shape), 0, 255).astype(np.uint8)
        verdicts = judge(hazy, restored), judge(hazy, other)
        undecided += 0 < verdicts[0].share < 1
        results = [
            interpolate(hazy, after, verdict.share).astype(int)
            for after, verdict in zip((restored, other), verdicts, strict=True)
        ]
        assert np.abs(results[0] - results[1]).max() <= 2
    assert undecided


def test_the_note_says_how_much_is_made() -> None:
    flat = drawn("flat", seed=0)
    notes = [judge(flat, shifted(flat, -by)).note for by in (2, 60)]
    assert notes[1] == (
        "the model's change was implausible for a drawn picture, such as text, a screenshot or one colour: "
        "the photo is left as it was (guard=off makes all of it)"
    )
    assert notes[0] is not None
    assert "% of it is made" in notes[0]


@pytest.fixture(scope="module")
def shipped() -> Restorer:
    return Restorer(device="cpu", precision="float32")


@pytest.mark.parametrize(
    "kind", ["flat", "night_sky", "star_field", "text_on_white", "text_on_colour", "chart"]
)
def test_guarantee_9_the_shipped_weights_leave_a_good_picture_as_it_was(shipped: Restorer, kind: str) -> None:
    picture = KINDS[kind](36, 96, 128)
    guarded = shipped.restorations([picture])[0]
    assert psnr(guarded.pixels, picture) >= 45
    assert guarded.note
    free = shipped.with_settings(seed=0, strength=1, equalise=False, guard=False).restorations([picture])[0]
    assert free.note is None
    assert psnr(free.pixels, picture) < 40


def test_it_can_be_turned_off_and_is_off_for_equalised_photos(tiny: UNet, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, tiny, Schedule.release())
    make: Callable[..., Restorer] = lambda **more: Restorer(  # noqa: E731
        weights, device="cpu", precision="float32", steps=1, **more
    )
    white = drawn("flat", seed=0)[:32, :32]
    restored, unguarded, equalised = (
        make(**more).restorations([white])[0] for more in ({}, {"guard": False}, {"equalise": True})
    )
    assert np.array_equal(restored.pixels, white)
    assert restored.note is not None
    assert restored.pixels is not white
    assert unguarded.note is None
    assert psnr(unguarded.pixels, white) < 35
    by_hand = make(guard=False).restore([equalise_histogram(white)])[0]
    assert equalised.note is None
    assert np.array_equal(equalised.pixels, by_hand)


def test_strength_applies_to_what_the_guard_leaves(photo: Pixels, tiny: UNet, tmp_path: Path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_weights(weights, tiny, Schedule.release())
    restorer = Restorer(weights, device="cpu", precision="float32", steps=1, guard=False)
    whole = restorer.restore([photo])[0]
    share = judge(photo, whole).share
    half = Restorer(weights, device="cpu", precision="float32", steps=1, strength=0.5).restore([photo])[0]
    assert np.array_equal(half, interpolate(photo, whole, share * 0.5))
