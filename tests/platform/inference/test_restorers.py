"""Other restorers than DiffUIR, by name: found or refused, loaded, held to the sizes of photos, recorded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffuir_core.equalise import equalise_histogram
from diffuir_core.errors import UserError
from diffuir_platform.evaluate.settings import EvaluateSettings
from diffuir_platform.inference import fetch_model, load_restorer, pinned_restorer, recorded, restore_each
from diffuir_platform.restore import RestoreOptions, restore
from diffuir_platform.restore.commands import RestoreModes, check_options
from diffuir_platform.restore.job import restore_job
from diffuir_platform.restore.settings import RestoreJob
from diffuir_platform.serve import ServeSettings

MODULE = """
class Inverts:
    precision = "uint8"
    def restorations(self, images):
        from diffuir_core.restorer import Restoration
        return [Restoration(255 - image, None) for image in images]
def inverts(weights):
    return Inverts()
def adds(weights):
    level = 1 if weights is None else int(weights.read_text())
    return lambda images: [image + level for image in images]
def doubles(weights):
    return lambda images: [image.repeat(2, 0).repeat(2, 1) for image in images]
def floats(weights):
    return lambda images: [image / 255 for image in images]
def loses(weights):
    return lambda images: []
def nothing(weights):
    return 3
def breaks(weights):
    raise RuntimeError("no GPU\\nhere")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module of restorers in it that is imported by no other test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MODULE)
    yield tmp_path
    sys.modules.pop("mine", None)


def photo(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, (height, width, 3), dtype=np.uint8)


def restored(name: str, image: np.ndarray, file: Path | None = None, **more: object) -> np.ndarray:
    return load_restorer(name, file, **more).restorations([image])[0].pixels  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "sharpenn",
        "sharpen:1",
        "torchscript",
        "torchscript:",
        "results:",
        "mine",
        "mine:",
        ":make",
        "a b:c",
    ],
)
def test_a_name_of_no_known_form_is_refused_with_all_forms(name: str) -> None:
    with pytest.raises(ValueError, match="module:factory, torchscript:FILE"):
        RestoreOptions(restorer=name)
    with pytest.raises(ValueError, match="there is no restorer"):
        ServeSettings(restorer=name)


def test_what_a_name_does_not_lead_to_is_one_sentence(here: Path) -> None:
    for name, says in (
        ("torchscript:no.pt", "no.pt"),
        ("results:no", "there is no folder no"),
        ("absent:make", "there is no module absent"),
        ("absent.deeper:make", "absent"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            fetch_model(name, None)
        assert "\n" not in str(raised.value)
    (here / "w.txt").write_text("7")
    with pytest.raises(UserError, match="takes no weights"):
        fetch_model("sharpen", "w.txt")
    for name, says in (
        ("mine:absent", "the module mine has no absent"),
        ("mine:breaks", "RuntimeError: no GPU here"),
        ("mine:nothing", "made int, which is no restorer"),
    ):
        with pytest.raises(UserError, match=says) as raised:
            load_restorer(name, None)
        assert "\n" not in str(raised.value)


def test_baselines_are_what_their_names_say() -> None:
    image = photo()
    assert np.array_equal(restored("identity", image), image)
    assert np.array_equal(restored("equalise", image), equalise_histogram(image))
    edge = np.full((20, 30, 3), 80, np.uint8)
    edge[:, 15:] = 160
    sharp = restored("sharpen", edge).astype(int)
    assert sharp.min() < 80 < 160 < sharp.max()
    assert (sharp[:, [0, -1]] == edge[:, [0, -1]]).all()


def test_a_factory_makes_an_object_or_a_function_of_images(here: Path) -> None:
    image = photo()
    assert np.array_equal(restored("mine:inverts", image), 255 - image)
    assert load_restorer("mine:inverts", None).precision == "uint8"
    assert np.array_equal(restored("mine:adds", image), image + 1)
    (here / "w.txt").write_text("7")
    with fetch_model("mine:adds", "w.txt").as_file() as file:
        assert np.array_equal(restored("mine:adds", image, file), image + 7)
    half = restored("mine:adds", np.full_like(image, 40), strength=0.0)
    assert (half == 40).all()
    equalised = restored("mine:inverts", image, equalise=True)
    assert np.array_equal(equalised, 255 - equalise_histogram(image))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine:doubles", "mine:doubles made 60x40 of a photo of 30x20"),
        ("mine:floats", "returned float64"),
        ("mine:loses", "returned 0 images for 1"),
    ],
)
def test_what_is_no_result_fails_its_photo(here: Path, name: str, says: str) -> None:
    (reason,) = restore_each(load_restorer(name, None), [photo()])
    assert isinstance(reason, str)
    assert says in reason


class Shifts(nn.Module):
    """A network that needs sides that are multiples of 4, and darkens each pixel by one sixteenth."""

    def forward(self, image: Tensor) -> Tensor:
        N, C, H, W = image.shape
        return image.view(N, C, H // 4, 4, W // 4, 4).mul(0.9375).view(N, C, H, W)


def script(file: Path, **extra: str) -> Path:
    torch.jit.save(torch.jit.script(Shifts()), file, _extra_files=extra)
    return file


class Doubles(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(image, scale_factor=2.0)


class Darkens(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * 0.9375


def exported(file: Path, is_dynamic: bool = True) -> Path:
    sizes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if is_dynamic else None
    program = torch.export.export(Darkens(), (torch.zeros(1, 3, 32, 48),), dynamic_shapes=(sizes,))
    torch.export.save(program, file)
    return file


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("kind", "save"), [("torchscript", script), ("exported", exported)])
def test_a_saved_network_gets_whole_multiples_and_tiles(
    tmp_path: Path, kind: str, save: Callable[[Path], Path]
) -> None:
    file = save(tmp_path / "n.pt2")
    expected = np.rint(photo(150, 333) * 0.9375).astype(np.uint8)
    assert np.abs(restored(f"{kind}:n.pt2", photo(150, 333), file).astype(int) - expected).max() <= 1
    (in_tiles,) = load_restorer(f"{kind}:n.pt2", file, tile=128).restorations([photo(150, 333)])
    assert in_tiles.tiling is not None
    assert in_tiles.tiling.tile == 128
    assert np.abs(in_tiles.pixels.astype(int) - expected).max() <= 1
    with pytest.raises(UserError, match="can't be loaded"):
        load_restorer(f"{kind}:mine", Path(__file__))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_saved_network_says_its_own_multiple(tmp_path: Path) -> None:
    one = load_restorer("torchscript:n.pt", script(tmp_path / "n.pt", multiple="1"))
    (reason,) = restore_each(one, [photo(21, 30)])
    assert isinstance(reason, str)
    assert "the restorer failed on it" in reason
    with pytest.raises(UserError, match="'4x' in its extra file 'multiple'"):
        load_restorer("torchscript:n.pt", script(tmp_path / "n.pt", multiple="4x"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_saved_network_of_one_size_or_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="export it for one image, with dynamic height and width"):
        load_restorer("exported:n.pt2", exported(tmp_path / "n.pt2", is_dynamic=False))
    torch.jit.save(torch.jit.script(Doubles()), tmp_path / "n.pt")
    (reason,) = restore_each(load_restorer("torchscript:n.pt", tmp_path / "n.pt"), [photo(32, 48)])
    assert isinstance(reason, str)
    assert "the network returned (1, 3, 64, 96) for (1, 3, 32, 48)" in reason


def test_results_are_found_by_the_names_of_their_photos(tmp_path: Path) -> None:
    (tmp_path / "made" / "a").mkdir(parents=True)
    for name, seed in (("a/1.png", 1), ("2.jpg", 2)):
        Image.fromarray(photo(seed=seed)).save(tmp_path / "made" / name)
    results = load_restorer(f"results:{tmp_path}/made", None)
    names = ["a/1.jpg", "2.jpg", "3.png"]
    first, second, third = restore_each(results, [photo()] * 3, names)
    assert np.array_equal(first.pixels, photo(seed=1))  # type: ignore[union-attr]
    assert not isinstance(second, str)
    assert isinstance(third, str)
    assert "there is no result 3.*" in third
    with pytest.raises(ValueError, match="which a request has not"):
        ServeSettings(restorer=f"results:{tmp_path}/made")


def test_what_tells_a_restorer_from_others_is_recorded(here: Path) -> None:
    (here / "made").mkdir()
    before = [recorded(name) for name in ("sharpen", "mine:adds", "results:made")]
    assert before == [recorded(name) for name in ("sharpen", "mine:adds", "results:made")]
    (here / "mine.py").write_text(MODULE + "# changed\n")
    Image.fromarray(photo()).save(here / "made" / "1.png")
    assert fetch_model("sharpen", None).sha256 == "none"
    after = [recorded(name) for name in ("sharpen", "mine:adds", "results:made")]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, False]
    assert recorded("torchscript:a/n.pt") == recorded("torchscript:b/n.pt")  # its hash is that of the weights
    settings = RestoreOptions(restorer="sharpen").result_settings("0" * 64)
    assert settings["restorer"] == "sharpen"
    assert not {"steps", "seed", "guard", "precision"} & settings.keys()
    assert "restorer" not in RestoreOptions().result_settings("0" * 64)
    assert pinned_restorer("torchscript:n.pt") == f"torchscript:{here}/n.pt"


def test_settings_without_effect_are_refused_where_they_are_given() -> None:
    job = RestoreJob(source="in/", target="out", restorer="sharpen", steps=2)
    with pytest.raises(UserError, match="--steps has no effect on the restorer sharpen"):
        check_options(job, RestoreModes())
    with pytest.raises(ValueError, match="seed has no effect on the restorer sharpen"):
        EvaluateSettings(pairs=Path("pairs"), restorer="sharpen", seed=1)
    with pytest.raises(ValueError, match="takes no weights: leave out models"):
        ServeSettings(restorer="sharpen", models={"a": "w.pt"})
    assert ServeSettings(restorer="sharpen").models == {"default": None}


def test_a_job_of_a_cluster_does_not_name_files_of_this_machine() -> None:
    job = RestoreJob(source="s3://b/in", target="s3://b/out", restorer="torchscript:n.pt")
    with pytest.raises(UserError, match=r"restorer.*n\.pt"):
        restore_job(job, "http://head:8265")


def test_a_collection_does_not_go_on_with_another_restorer(here: Path) -> None:
    (here / "in").mkdir()
    Image.fromarray(photo()).save(here / "in" / "1.png")
    options = RestoreOptions(restorer="mine:adds")
    assert restore("in", "out", options, seconds_without_ray=1e9).done == 1
    assert np.array_equal(np.asarray(Image.open(here / "out" / "1.png")), photo() + 1)
    (here / "mine.py").write_text(MODULE.replace("1 if", "2 if"))
    with pytest.raises(UserError, match=r"restorer was mine:adds \(\w+\) and is mine:adds \(\w+\)"):
        restore("in", "out", options, seconds_without_ray=1e9)
