"""Training photos that are also test photos are refused by the run and left out of an index, and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from diffuir_core import UserError
from diffuir_platform.data import check_apart, list_sources, open_index
from diffuir_platform.data.building import build_index
from diffuir_platform.data.examples import PHOTOS_FOLDER
from diffuir_platform.data.overlap import TestPhotos
from diffuir_platform.data.settings import IndexOptions
from diffuir_platform.data.sources import DataConfig

PHOTOS = sorted(PHOTOS_FOLDER.iterdir())


def picture(number: int) -> Image.Image:
    return Image.open(PHOTOS[number]).convert("RGB")


def save(folder: Path, **pictures: Image.Image) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in pictures.items():
        image.save(folder / f"{name}.jpg", quality=90)
    return folder


def index(root: Path, out: Path, **options: object) -> str:
    return build_index(str(root), str(out), IndexOptions.model_validate({"layout": "clean", **options})).uri


@pytest.fixture
def tests(tmp_path: Path) -> str:
    root = save(tmp_path / "held", one=picture(0), two=picture(1), three=picture(2))
    return index(root, tmp_path / "held.parquet")


def same_place(image: Image.Image) -> dict[str, Image.Image]:
    """Ways in which a photo, or a photo from the same stand, comes into a training set."""
    width, height = image.size
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3))
    return {
        "copied": image,
        "smaller": image.resize((width // 3, height // 3)),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "darker": ImageEnhance.Brightness(image).enhance(0.4),
        "grey": image.convert("L").convert("RGB"),
        "shifted": image.crop((width // 25, 0, width, height - height // 25)),
        "noisy": Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)),
    }


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("way", list(same_place(Image.new("RGB", (50, 50)))))
def test_another_version_of_a_test_photo_is_found(tests: str, number: int, way: str) -> None:
    found = TestPhotos([tests]).same_place(np.asarray(same_place(picture(number))[way]))
    assert found == f"held/{('one', 'two', 'three')[number]}.jpg"


def test_other_photos_and_even_ones_are_not(tests: str) -> None:
    compared = TestPhotos([tests])
    for number in range(3, len(PHOTOS)):
        assert compared.same_place(np.asarray(picture(number))) is None
    for level in (0, 128, 255):
        assert compared.same_place(np.full((90, 120, 3), level, np.uint8)) is None


def test_an_index_leaves_them_out_and_names_them(tests: str, tmp_path: Path) -> None:
    root = save(tmp_path / "train", a=picture(4), b=picture(5), leaked=picture(1).resize((200, 150)))
    uri = index(root, tmp_path / "train.parquet", apart_from=[tests], mismatched=0.5)
    assert [row.key for row in open_index(uri).rows()] == ["a.jpg", "b.jpg"]
    reasons = Path(f"{uri}.mismatches.jsonl").read_text()
    assert "leaked" in reasons
    assert "it shows what the test photo held/two.jpg shows" in reasons
    assert open_index(uri).apart_from == (open_index(tests).fingerprint,)


def test_a_run_is_refused_with_the_pairs_named(
    tests: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = save(tmp_path / "train", a=picture(4), leaked=same_place(picture(2))["darker"])
    config = DataConfig(clean=(root,), apart_from=(tests,))
    with pytest.raises(UserError, match=r"leaked\.jpg shows what held/three\.jpg shows.*leave them out"):
        check_apart(config, list_sources(config))
    (root / "leaked.jpg").unlink()
    capsys.readouterr()
    check_apart(config, list_sources(config))
    assert capsys.readouterr().out == f"comparing 1 photo with those of {tests}\n"


def test_an_index_that_was_compared_is_not_read_again(tests: str, tmp_path: Path) -> None:
    root = save(tmp_path / "train", a=picture(4))
    uri = index(root, tmp_path / "train.parquet", apart_from=[tests])
    config = DataConfig(index=(uri,), apart_from=(tests,))
    sources = list_sources(config)
    (root / "a.jpg").unlink()
    check_apart(config, sources)


def test_an_index_without_clean_photos_says_so(tmp_path: Path) -> None:
    root = save(tmp_path / "wet", a=picture(4))
    uri = index(root, tmp_path / "wet.parquet", layout="unpaired", task="rain")
    with pytest.raises(UserError, match="no clean photos to stay apart from"):
        TestPhotos([uri])
