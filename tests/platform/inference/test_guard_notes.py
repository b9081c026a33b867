"""The guard as an option of all three ways to restore, and its note in what they tell."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffuir_core.imaging import Pixels, decode
from diffuir_core.restorer import Restoration
from diffuir_core.tiling import Tiling
from diffuir_platform.config import load_config
from diffuir_platform.evaluate.settings import DemoSettings, EvaluateSettings
from diffuir_platform.inference import with_restored
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.restore.single_photo import single_item
from diffuir_platform.restore.stages import Photo, read
from diffuir_platform.restore.stages import restore as restore_stage
from diffuir_platform.serve.gateway.gateway import _encode
from diffuir_platform.serve.model import Restored
from diffuir_platform.serve.schemas import JobRequest, RestoreQuery
from support.drawn_pictures import KINDS


@pytest.mark.parametrize(
    ("written", "meant"), [("off", "off"), ("on", "on"), ("'off'", "off"), ("false", "off")]
)
def test_yaml_may_write_it_as_it_likes(written: str, meant: str) -> None:
    words = [f"guard={written}", "source=in", "target=out"]
    assert load_config(RestoreJob, None, words).guard == meant


def test_requests_and_jobs_take_it() -> None:
    assert RestoreQuery.model_validate({"guard": "off"}).guard == "off"
    assert JobRequest.model_validate_json('{"source": "a", "target": "b", "guard": "off"}').guard == "off"
    assert RestoreQuery().guard == "on"


def test_results_with_and_without_it_do_not_share_an_output() -> None:
    on, off = (RestoreOptions(guard=guard).result_settings("0") for guard in ("on", "off"))  # type: ignore[arg-type]
    assert {name for name in on if on[name] != off[name]} == {"guard"}


def test_an_evaluation_measures_the_model_alone_and_the_demo_the_product(tmp_path: Path) -> None:
    assert EvaluateSettings(pairs=tmp_path).restore_options().guard == "off"
    assert DemoSettings().restore_options().guard == "on"


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Judged:
    """A restorer whose guard has left every photo as it was."""

    precision = "float32"

    def restorations(self, images: list[np.ndarray]) -> list[Restoration]:
        return [Restoration(image, Tiling(200, 200, 128, 64), "left as it was") for image in images]


def test_a_photo_gets_the_note(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(KINDS["night_sky"](0, 40, 60)))
    item, _ = single_item(str(tmp_path / "a.png"), str(tmp_path / "b.png"), None)
    photos: list[Photo] = restore_stage(read([item], "all", False, 10**6), Judged())
    image = photos[0].image
    assert image is not None
    assert image.notes[-1] == "left as it was"
    assert with_restored(image, image.pixels, None, None).notes == image.notes


def test_an_answer_of_the_endpoint_gets_the_note() -> None:
    image = decode(png(KINDS["night_sky"](0, 40, 60)))
    restored = Restored(image.pixels, None, "left as it was", "float32", 0.0, 0.1, 1)
    answered, data = _encode(image, restored, "PNG", 95)
    assert answered.notes == ("left as it was",)
    assert np.array_equal(decode(data).pixels, image.pixels)


def test_guarantee_9_a_restore_leaves_a_star_field_and_says_so(tmp_path: Path) -> None:
    stars = KINDS["star_field"](7, 64, 96)
    Image.fromarray(stars).save(tmp_path / "stars.png")
    options = RestoreOptions(device="cpu", precision="float32", steps=1)
    kept = restore(tmp_path / "stars.png", tmp_path / "kept.png", options)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "kept.png")), stars)
    assert list(kept.noted.values()) == [
        "the model's change was implausible for thin detail on an even ground, such as stars or print: "
        "the photo is left as it was (guard=off makes all of it)"
    ]
    changed = restore(
        tmp_path / "stars.png", tmp_path / "changed.png", options.model_copy(update={"guard": "off"})
    )
    assert not changed.noted
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "changed.png")), stars)
