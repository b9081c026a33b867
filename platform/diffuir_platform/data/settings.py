"""The settings of an index."""

from __future__ import annotations

from pydantic import Field

from diffuir_core.imaging import DEFAULT_LIMITS

from ..config import Config


class IndexOptions(Config):
    """Options for making an index of the files of a data set."""

    layout: str
    """Layout of the files below ROOT, one of the list below."""
    task: str | None = None
    """Task of the layouts pairs and unpaired, which leave it open: haze, rain, snow, low_light, blur, ..."""
    dataset: str | None = None
    """Name of the data set, for layouts that leave it open; null for the name of ROOT."""
    split: str | None = None
    """Name of the split, for layouts that leave it open; null for the layout's own."""
    equalise: bool = False
    """Note in the index that the network is to see low-light photos with their histograms equalised."""
    mismatched: float = Field(default=0.01, ge=0, le=1)
    """Largest share of a split's files that may have no match."""
    apart_from: tuple[str, ...] = ()
    """Indexes of test photos: a training photo that is one of them, or shows its place from the same stand, is
    left out and named."""
    max_pixels: int = Field(default=DEFAULT_LIMITS.max_pixels, ge=1)
    """Largest photo, width x height in pixels; a larger one is listed as a mismatch. The largest file follows:
    8 bytes a pixel, or 1 GiB if that is more."""
    pack: str | None = None
    """Folder to copy the photos into, in large files that the index then points into; null leaves them where they
    are."""


class IndexJob(IndexOptions):
    """An index as the command makes it."""

    root: str
    """Folder of the data set: a path, or s3://bucket/path."""
    out: str
    """The index, a Parquet file: a path, or s3://bucket/path."""
