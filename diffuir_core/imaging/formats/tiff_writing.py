"""Writing TIFF files (TIFF 6.0): one way for 8 and 16 bits, with or without metadata.

A file begins with the photo's EXIF block, which is a TIFF itself, so that all offsets in it stay valid. The strips
follow, and then the directory that the header points to: the layout, and the tags of the block's own directory.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from ...pixels import Pixels
from ..image import Samples
from ..metadata import exif, photoshop
from ..metadata.content import Metadata
from ..metadata.reading import LAYOUT_TAGS
from ..metadata.writing import exif_resolution

_GREY, _RGB, _PALETTE = 1, 2, 3
_ZLIB, _DIFFERENCES, _UNASSOCIATED = 8, 2, 2
_STRIP_BYTES = 2**20
_PARENTS = {exif.EXIF, exif.GPS}
"""Tags of the block's directory that point to others in it."""
_RESOLUTION = {exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT}


def tiff(samples: Samples | Pixels, metadata: Metadata, palette: bytes | None = None) -> bytes:
    """Encode uint8 or uint16 (H, W, C): C = 1 grey, or an index into `palette`, 2 grey and alpha, 3 RGB, 4 RGB and
    alpha, which is not premultiplied.

    palette: up to 256 colours of three bytes.
    """
    height, width, channels = samples.shape
    bits = samples.dtype.itemsize * 8
    parts = [bytearray(metadata.exif or b"II*\0\0\0\0\0")]
    writer = _Writer(parts, "<" if parts[0][:2] == b"II" else ">")
    rows = min(max(1, _STRIP_BYTES // (width * channels * samples.dtype.itemsize)), height)
    strips = [
        writer.add(_strip(samples[top : top + rows], writer.order, palette)) for top in range(0, height, rows)
    ]
    writer.shorts(258, *(bits,) * channels)
    writer.shorts(259, _ZLIB)
    writer.shorts(262, _PALETTE if palette else _GREY if channels < 3 else _RGB)
    writer.shorts(277, channels)
    for tag, numbers in ((256, [width]), (257, [height]), (278, [rows])):
        writer.longs(tag, *numbers)
    writer.longs(273, *(at for at, _ in strips))
    writer.longs(279, *(length for _, length in strips))
    if palette is None:
        writer.shorts(317, _DIFFERENCES)
    else:
        colours = np.frombuffer(palette.ljust(768, b"\0"), np.uint8).reshape(256, 3)
        writer.shorts(320, *(int(value) * 257 for value in colours.T.ravel()))
    if channels % 2 == 0:
        writer.shorts(338, _UNASSOCIATED)
    long_values = {
        700: (1, metadata.xmp),
        33723: (1, photoshop.iptc(metadata.photoshop)),
        34377: (1, photoshop.without_iptc(metadata.photoshop)),
        34675: (7, metadata.icc_profile),
    }
    for tag, (kind, data) in long_values.items():
        if data:
            writer.value(tag, kind, len(data), data)
    if metadata.resolution is not None:
        for tag, (kind, count, data) in exif_resolution(metadata.resolution, writer.order).items():
            writer.value(tag, kind, count, data)
    if metadata.exif:
        writer.copy_directory(metadata.exif)
    return writer.finish()


def _strip(samples: Samples | Pixels, order: str, palette: bytes | None) -> bytes:
    """Compressed rows: samples minus their left neighbours (TIFF 6.0, section 14), or indices as they are."""
    if palette is None:
        samples = np.diff(samples, axis=1, prepend=samples.dtype.type(0))
    return zlib.compress(samples.astype(f"{order}u{samples.dtype.itemsize}", copy=False).tobytes())


class _Writer:
    """A file that grows, and the entries of the directory that ends it."""

    def __init__(self, parts: list[bytearray], order: str) -> None:
        self.order = order
        self._parts: list[bytes | bytearray] = [*parts]
        self._length = len(parts[0])
        self._fields: dict[int, bytes] = {}

    def add(self, data: bytes) -> tuple[int, int]:
        """Append bytes at an even position; returns their position and length."""
        if self._length % 2:
            self._parts.append(b"\0")
            self._length += 1
        at = self._length
        self._parts.append(data)
        self._length += len(data)
        return at, len(data)

    def value(self, tag: int, kind: int, count: int, data: bytes) -> None:
        """Set a tag, its value in the entry if it is short enough."""
        if len(data) > 4:
            data = struct.pack(self.order + "I", self.add(data)[0])
        self._fields[tag] = struct.pack(self.order + "HHI4s", tag, kind, count, data)

    def shorts(self, tag: int, *numbers: int) -> None:
        """Set a tag to numbers of 16 bits."""
        self.value(tag, exif.SHORT, len(numbers), struct.pack(f"{self.order}{len(numbers)}H", *numbers))

    def longs(self, tag: int, *numbers: int) -> None:
        """Set a tag to numbers of 32 bits."""
        self.value(tag, exif.LONG, len(numbers), struct.pack(f"{self.order}{len(numbers)}I", *numbers))

    def copy_directory(self, block: bytes) -> None:
        """Take over the tags of the block's own directory, whose values stay where they are."""
        source = exif.Tiff(block)
        for entry in source.entries(source.first):
            is_layout = entry.tag in LAYOUT_TAGS and entry.tag not in _PARENTS | _RESOLUTION
            if not is_layout and entry.tag not in self._fields and source.value(entry) is not None:
                self._fields[entry.tag] = block[entry.at : entry.at + 12]

    def finish(self) -> bytes:
        """The file."""
        fields = [field for _, field in sorted(self._fields.items())]
        directory = struct.pack(self.order + "H", len(fields)) + b"".join(fields) + bytes(4)
        at, _ = self.add(directory)
        head = self._parts[0]
        assert isinstance(head, bytearray)
        head[4:8] = struct.pack(self.order + "I", at)
        return b"".join(self._parts)
