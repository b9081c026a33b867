"""The settings of a restore: the only place that defines them.

`PhotoOptions` can be asked for one photo, of an endpoint too. `RestoreOptions` add how and where photos are
restored, `RestoreJob` adds which photos, and how one run treats the runs before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from diffuir_core.errors import UserError
from diffuir_core.imaging import DEFAULT_LIMITS, ExifPolicy

from ..config import ClusterAddress, Config
from ..inference import SETTINGS_OF_DIFFUIR, NamedRestorer, load_restorer, recorded

if TYPE_CHECKING:
    from diffuir_core import Restorer

    from ..inference.other_restorer import OtherRestorer
    from .inputs import Choice

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]


def _word_of_switch(value: Any) -> Any:
    """YAML reads on and off as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Guard = Annotated[Literal["on", "off"], BeforeValidator(_word_of_switch)]
"""Whether the guard is on."""


class PhotoOptions(Config):
    """Options for restoring and writing a photo, with any model."""

    strength: float = Field(default=1.0, ge=0, le=1)
    """Share of the model's change that is made: 0 leaves the photo as it is, 1 restores it in full."""
    equalise: bool = False
    """Equalise the photo's histogram first, as published weights for low light expect."""
    guard: Guard = "on"
    """Leave out what is implausible of the model's change, with a note: of a night sky that becomes grey, or of a
    white page that becomes dark. Of an equalised photo the whole change is made, as with off."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of the noise, which also depends on the photo's own content."""
    format: Literal["jpeg", "png", "webp", "tiff", "bmp", "heic", "avif", "jxl"] | None = None
    """File format of the result; null for the photo's own, and TIFF for a RAW photo."""
    quality: int = Field(default=95, ge=1, le=100)
    """Quality of a result in JPEG, HEIC, AVIF, lossy WebP or lossy JPEG XL."""
    exif: ExifPolicy = "without-gps"
    """EXIF, XMP, IPTC and texts that the result keeps: all but the place (GPS), all, or none. The colour space and
    the resolution stay."""
    truncated: bool = False
    """Restore a JPEG, PNG or BMP file that ends too early as far as it goes, instead of failing on it."""


class RestoreOptions(PhotoOptions):
    """Options for restoring photos: which model, where it runs, and which inputs it gets."""

    restorer: NamedRestorer = None
    """Restorer: identity, equalise, sharpen, module:factory, torchscript:FILE, exported:FILE, spandrel:FILE or
    results:FOLDER; null for DiffUIR. On the others steps, seed, guard and precision have no effect. They may be
    programs: take only those of people you trust."""
    weights: str | None = None
    """Weights: a .safetensors of ours or a published .pt, as a path or a URI, or models:/NAME@ALIAS of MLflow's
    registry; null for those that ship. With module:factory any file, for the factory."""
    steps: int = Field(default=3, ge=1, le=1000)
    """Sampling steps."""
    device: Device = "auto"
    """Device of the model; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of the model's arithmetic; auto takes the faster one, measured where the model runs."""
    tile: int | None = Field(default=None, ge=128, multiple_of=16)
    """Side of the tiles, in pixels, that larger photos are restored in; null restores photos whole, and in the
    largest tiles that fit where memory is short."""
    batch_size: int | None = Field(default=None, ge=1, le=256)
    """Most photos in a batch of the model; null for about one second of work. Results do not depend on it."""
    models: int | None = Field(default=None, ge=1)
    """Processes that hold a model; null for as many as the cluster has room for at any time. A larger number makes
    a cluster's autoscaler start nodes."""
    gpu_share: float = Field(default=1.0, gt=0, le=1)
    """Share of a GPU that each of these processes takes: several small models fill a GPU together."""
    attempts: int = Field(default=3, ge=1, le=20)
    """Give up on a photo after it has crashed this many processes."""
    timeout: float = Field(default=600.0, gt=0, le=86_400)
    """Longest time, in seconds, in which a photo gets no step further (read, a pass of the network, written);
    after it the process that has it is ended, which counts as a crash."""

    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1)
    """Largest photo, width x height in pixels; a larger one fails before it is decoded. The largest file follows
    from it: 8 bytes a pixel, or 1 GiB if that is more."""

    overwrite: bool = False
    """Replace files in OUT that this command did not make, or that were changed since it made them. Without it
    each of them stays, and its photo fails."""

    include: tuple[str, ...] = ()
    """Patterns of keys to restore, where * matches / too; empty for all."""
    exclude: tuple[str, ...] = ()
    """Patterns of keys to leave out, where * matches / too."""
    column: str = "uri"
    """Column of a .parquet list that holds the paths or URIs."""

    address: ClusterAddress = None

    @property
    def choice(self) -> Choice:
        """The rule which inputs are restored."""
        from .inputs import Choice

        return Choice(include=self.include, exclude=self.exclude, column=self.column)

    def make_restorer(self, file: Path | None = None, code: str | None = None) -> Restorer | OtherRestorer:
        """The restorer that these options describe, with a file that `fetch_model` fetched.

        code: a folder in which a factory's module may be, too. Raises `UserError` for what can't be used, and as
        `check_device` does.
        """
        self.check_device()
        if self.restorer is None:
            return self.diffuir(file)
        return load_restorer(
            self.restorer,
            file,
            device=self.device,
            tile=self.tile,
            strength=self.strength,
            equalise=self.equalise,
            code=code,
        )

    def diffuir(self, weights: Path | None = None) -> Restorer:
        """DiffUIR as these options describe it, with the weights of a file (None: those that ship)."""
        from diffuir_core import Restorer

        return Restorer(
            weights,
            device=self.device,
            precision=self.precision,
            steps=self.steps,
            seed=self.seed,
            tile=self.tile,
            strength=self.strength,
            equalise=self.equalise,
            guard=self.guard == "on",
        )

    def check_device(self) -> None:
        """Raise `UserError` where this machine does not have the device that is asked for."""
        if self.device != "cuda":
            return
        import torch

        if not torch.cuda.is_available():
            raise UserError(
                "this machine has no GPU that torch can use: leave out --device, or give --device cpu"
            )

    def result_settings(self, weights_sha256: str) -> dict[str, Any]:
        """The settings that a result depends on: two runs that agree in them may share an output."""
        names: tuple[str, ...] = (
            *("steps", "strength", "equalise", "guard", "seed", "device", "precision", "tile"),
            *("truncated", "exif", "format", "quality"),
        )
        values = self.model_dump(mode="json", include=set(names))
        if self.restorer is not None:
            names = tuple(name for name in names if name not in SETTINGS_OF_DIFFUIR)
            values["restorer"], names = recorded(self.restorer), ("restorer", *names)
        return {"weights": weights_sha256, **{name: values[name] for name in names}}


class RestoreJob(RestoreOptions):
    """A restore as a command, a YAML file or a job has it."""

    source: str
    """A photo; a folder or s3:// prefix; a pattern; a .txt list (a path or URI on each line, # begins a comment)
    or .parquet list; or .tar shards."""
    target: str
    """Folder or s3:// prefix of the results, or for one photo also a file."""
    restart: bool = False
    """Begin anew, and discard what earlier runs made in the same target, unless it was changed since."""
    retry_failed: bool = False
    """Restore only the photos that failed in earlier runs."""
    progress_file: str | None = None
    """URI of a JSON file that the run keeps up to date with its counts, and at its end with what ended it; null
    writes none."""
