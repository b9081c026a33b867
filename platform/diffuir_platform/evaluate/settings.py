"""The settings of an evaluation and of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from diffuir_core.metrics import DEFAULT_PROTOCOL, ProtocolName

from ..config import Config, field_of
from ..inference import SETTINGS_OF_DIFFUIR, NamedRestorer
from ..restore.settings import Device, Guard, Precision, RestoreOptions


class MeasuredRestore(Config):
    """The options of `diffuir restore` that a measurement may change."""

    restorer: NamedRestorer = field_of(RestoreOptions, "restorer")
    weights: str | None = field_of(RestoreOptions, "weights")
    steps: int = field_of(RestoreOptions, "steps")
    seed: int = field_of(RestoreOptions, "seed")

    @model_validator(mode="after")
    def _has_effect(self) -> Self:
        for name in SETTINGS_OF_DIFFUIR:
            field = type(self).model_fields.get(name)
            if self.restorer is not None and field is not None and getattr(self, name) != field.default:
                raise ValueError(f"{name} has no effect on the restorer {self.restorer}: leave it out")
        return self

    def restore_options(self) -> RestoreOptions:
        """The options of the restore that is measured."""
        names = type(self).model_fields.keys() & RestoreOptions.model_fields.keys()
        return RestoreOptions(**{name: getattr(self, name) for name in names})


class DemoSettings(MeasuredRestore):
    """The settings of `diffuir demo`."""

    out: Path = Path("demo")
    """Folder for the photos and the contact sheet."""


class FitNiqeSettings(Config):
    """The settings of `diffuir fit-niqe`."""

    photos: Path
    """Folder of pristine photos: sharp, clean and natural; NIQE's authors took 125."""
    out: Path
    """File for the statistics; its name ends in .npz."""
    metric: Literal["niqe-matlab", "niqe-released", "il-niqe", "il-niqe-unresized"] = "niqe-matlab"
    """Definition that the statistics are for."""


class EvaluateSettings(MeasuredRestore):
    """The settings of `diffuir evaluate`."""

    pairs: Path
    """Folder with degraded/ and clean/, or a folder of such folders."""
    device: Device = field_of(RestoreOptions, "device")
    precision: Precision = field_of(RestoreOptions, "precision", default="float32")
    guard: Guard = field_of(
        RestoreOptions,
        "guard",
        default="off",
        description="Leave out what is implausible of the model's change, as `diffuir restore` does; off measures "
        "the model alone.",
    )
    protocol: ProtocolName = DEFAULT_PROTOCOL
    """Definition of PSNR and SSIM; diffuir_core/metrics/README.md has what each is and how far they differ."""
    out: Path | None = None
    """Folder for table.md, results.json and the restored photos; null keeps none of them."""
