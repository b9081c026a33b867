"""LPIPS is that of its authors' package, and says which files it needs."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffuir_core.errors import UserError
from diffuir_core.metrics import MetricError
from diffuir_core.metrics.lpips import (
    BACKBONES,
    LPIPS_VARIANTS,
    Lpips,
    PublishedFile,
    load_lpips,
    lpips,
    read_published,
)
from diffuir_core.pixels import Pixels

POOL = 0
VGG = (64, 64, POOL, 128, 128, POOL, 256, 256, 256, POOL, 512, 512, 512, POOL, 512, 512, 512)
TAKEN = {"vgg": (4, 9, 16, 23, 30), "alex": (2, 5, 8, 10, 12)}
"""Number of layers up to each of the five levels."""


def layers(backbone: str) -> nn.Sequential:
    """The layers of torchvision's `features`, as its published files number them, with random weights."""
    torch.manual_seed(3)
    if backbone == "alex":
        return nn.Sequential(
            *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        )
    made: list[nn.Module] = []
    channels = 3
    for width in VGG:
        made += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*made)


def state_of(features: nn.Sequential) -> dict[str, Tensor]:
    return {f"features.{name}": tensor for name, tensor in features.state_dict().items()}


def linear_for(features: nn.Sequential, backbone: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    widths = [list(features[:end].parameters())[-1].numel() for end in TAKEN[backbone]]
    return {
        f"lin{level}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
        for level, width in enumerate(widths)
    }


def photo(seed: int, height: int = 50, width: int = 67) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_definition(
    a: Pixels, b: Pixels, features: nn.Sequential, linear: Mapping[str, Tensor], signed: bool
) -> float:
    """Eq. 1 of the paper, level by level."""
    backbone = "alex" if len(features) < 20 else "vgg"
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    inputs = []
    for image in (a, b):
        levels = torch.from_numpy(image).permute(2, 0, 1) / 255
        inputs.append((((2 * levels - 1) if signed else levels) - shift) / scale)
    total = 0.0
    with torch.no_grad():
        for level, end in enumerate(TAKEN[backbone]):
            one, other = (
                nn.functional.normalize(features[:end](levels[None]), dim=1, eps=1e-10) for levels in inputs
            )
            total += float((linear[f"lin{level}.model.1.weight"] * (one - other) ** 2).sum(dim=1).mean())
    return total


@pytest.mark.parametrize("variant", LPIPS_VARIANTS)
def test_it_is_the_definition_written_out(variant: str) -> None:
    described = LPIPS_VARIANTS[variant]
    features = layers(described.backbone)
    linear = linear_for(features, described.backbone)
    model = Lpips(variant, state_of(features), linear)
    expected = by_definition(photo(1), photo(2), features, linear, described.signed)
    assert expected > 1e-3
    assert lpips(photo(1), photo(2), model) == pytest.approx(expected, rel=1e-4)
    assert lpips(photo(1), photo(1), model) == 0


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The authors' package, with a stand-in where torchvision does not fit this PyTorch: its networks are ours."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        stand_in = types.ModuleType("torchvision")
        stand_in.models = types.SimpleNamespace(  # type: ignore[attr-defined]
            vgg16=lambda pretrained: types.SimpleNamespace(features=layers("vgg")),
            alexnet=lambda pretrained: types.SimpleNamespace(features=layers("alex")),
        )
        monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    return pytest.importorskip(
        "lpips", reason="the package lpips is not installed: LPIPS is not compared with it"
    )


@pytest.mark.parametrize("variant", LPIPS_VARIANTS)
def test_it_is_that_of_the_authors_package(variant: str, package: types.ModuleType) -> None:
    described = LPIPS_VARIANTS[variant]
    backbone = BACKBONES[described.backbone]
    theirs = package.LPIPS(net=described.backbone, pnet_rand=True, verbose=False)
    numbered = {
        f"features.{name.partition('.')[2]}": tensor for name, tensor in theirs.net.state_dict().items()
    }
    file = Path(package.__file__).parent / "weights" / "v0.1" / backbone.linear.name
    ours = Lpips(variant, numbered, read_published(file, backbone.linear))
    a, b = (torch.from_numpy(photo(seed, 96, 130)).permute(2, 0, 1)[None] / 255 for seed in (1, 2))
    with torch.no_grad():
        expected = float(theirs(a, b, normalize=described.signed))
    assert expected > 1e-3
    assert float(ours(a, b)) == pytest.approx(expected, rel=1e-5)
    assert lpips(photo(1, 96, 130), photo(2, 96, 130), ours) == pytest.approx(expected, rel=1e-5)


def test_a_file_that_is_missing_or_another_is_named_with_where_the_right_one_is(tmp_path: Path) -> None:
    missing = tmp_path / "vgg16-397923af.pth"
    at = (
        r"it should be vgg16-397923af\.pth, which is published at https://download\.pytorch\.org/models/vgg16"
    )
    with pytest.raises(UserError, match=rf"vgg16-397923af\.pth can't be read \(No such file.*\): {at}"):
        load_lpips("vgg", missing, tmp_path / "vgg.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, missing)
    with pytest.raises(UserError, match=rf"is another file, with the SHA-256 [0-9a-f]{{16}}\.\.\.: {at}"):
        load_lpips("vgg-01", missing, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match="no LPIPS 'squeeze': choose one of vgg, alex, vgg-01"):
        load_lpips("squeeze", missing, missing)


def test_a_file_is_known_by_its_hash_and_its_tensors_by_their_shapes(tmp_path: Path) -> None:
    features = layers("alex")
    path = tmp_path / "some.pth"
    torch.save(state_of(features), path)
    right = PublishedFile(
        name="some.pth", sha256=hashlib.sha256(path.read_bytes()).hexdigest()[:8], at="nowhere"
    )
    state = read_published(path, right)
    assert state.keys() == state_of(features).keys()
    linear = linear_for(features, "alex")
    with pytest.raises(UserError, match=r"lin4\.model\.1\.weight is missing and should be \(1, 256, 1, 1\)"):
        Lpips("alex", state, {name: tensor for name, tensor in linear.items() if "lin4" not in name})
    with pytest.raises(
        UserError, match=r"features\.0\.weight is \(64, 3, 11, 11\) and should be \(64, 3, 3, 3\)"
    ):
        Lpips("vgg", state, linear)
    damaged = PublishedFile(name="d.pth", sha256=hashlib.sha256(b"no weights").hexdigest(), at="nowhere")
    (tmp_path / "d.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"can't be read as weights: it should be d\.pth"):
        read_published(tmp_path / "d.pth", damaged)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_images_that_are_too_small_are_refused(backbone: str) -> None:
    features = layers(backbone)
    model = Lpips(backbone, state_of(features), linear_for(features, backbone))
    least = BACKBONES[backbone].smallest
    with pytest.raises(MetricError, match=f"at least {least}x{least} pixels, these are 67x{least - 1}"):
        lpips(photo(1, least - 1), photo(2, least - 1), model)
    assert lpips(photo(1, least), photo(2, least), model) > 0
    with pytest.raises(MetricError, match="differ in size"):
        lpips(photo(1), photo(2, 51), model)
