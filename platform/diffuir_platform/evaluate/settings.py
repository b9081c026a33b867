"""The settings of an evaluation and of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from diffuir_core.metrics import ProtocolName

from ..config import ClusterAddress, Config, field_of
from ..inference import SETTINGS_OF_DIFFUIR, NamedRestorer
from ..restore.settings import Device, Guard, Precision, RestoreOptions


class MeasuredRestore(Config):
    """The options of `diffuir restore` that a measurement may change."""

    restorer: NamedRestorer = field_of(RestoreOptions, "restorer")
    weights: str | None = field_of(RestoreOptions, "weights")
    steps: int | None = field_of(RestoreOptions, "steps")
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
        given = {name: getattr(self, name) for name in names}
        return RestoreOptions(**{name: value for name, value in given.items() if value is not None})


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

    pairs: Path | None = None
    """Folder with degraded/ and clean/, or a folder of such folders; with --no-truth, a folder of photos or of
    folders of photos."""
    truth: bool = True
    """Whether PAIRS has truths; without them, what needs none is measured: LOE, NIQE and IL-NIQE."""
    benchmark: str | None = None
    """Benchmarks of the paper in place of PAIRS, separated by commas: names of the list below, a table, or all."""
    data: str | None = None
    """Folder that holds the data sets of --benchmark as they unpack, each in it or in a folder in it; or an index
    (.parquet)."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; null for those of the benchmark, and 3 for a folder."""
    equalise: bool | None = None
    """Equalise the histograms of degraded photos first; null: of benchmarks of low light, where the header of the
    weights says that they were trained so, and with published weights; of no others."""
    device: Device = field_of(RestoreOptions, "device")
    precision: Precision = field_of(RestoreOptions, "precision", default="float32")
    guard: Guard = field_of(
        RestoreOptions,
        "guard",
        default="off",
        description="Leave out what is implausible of the model's change, as `diffuir restore` does; off measures "
        "the model alone.",
    )
    models: int | None = field_of(RestoreOptions, "models")
    address: ClusterAddress = None
    protocol: ProtocolName | None = None
    """Definition of PSNR and SSIM; null for those of the benchmark, and released-y for a folder.
    diffuir_core/metrics/README.md has what each is and how far they differ."""
    niqe: Path | None = None
    """Pristine statistics of NIQE: the published file, or one of diffuir fit-niqe; null leaves NIQE out."""
    il_niqe: Path | None = None
    """Pristine statistics of IL-NIQE; null leaves it out."""
    lpips_backbone: Path | None = None
    """Published classifier of LPIPS; null leaves LPIPS out."""
    lpips_linear: Path | None = None
    """Published weights of the comparison of LPIPS."""
    out: Path | None = None
    """Folder for the tables, the scores of each image, the page and the restored photos, in which the same command
    goes on; null keeps none of them."""
    restart: bool = False
    """Begin anew, and discard what an earlier evaluation made in the same folder."""
    tracking_uri: str | None = None
    """Address of an MLflow server, or sqlite:///FILE, that gets settings, means and tables too; null for none."""
    experiment: str = "diffuir-evaluate"
    """Name of MLflow's experiment."""
