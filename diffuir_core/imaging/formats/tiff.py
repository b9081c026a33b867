"""TIFF files of plain samples (TIFF 6.0 and its later compressions), read by tifffile with all their bits.

Other TIFFs (JPEG, fax and palette pictures) are left to Pillow.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

from ..image import ImageError
from .sampled import Array, Planes, SampledFile, from_floats, scaled, unassociated

# It logs what it skips of a damaged file, which would be the only words that a command prints about it.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
"""Photometric interpretation -> number of colour samples."""
_COMPRESSIONS = {1, 5, 8, 32_946, 32_773, 34_925, 50_000}
"""None, LZW, Deflate (two numbers), PackBits, LZMA and Zstandard: no others are given to tifffile, which knows
many that are rare, some of them with a history of crashes."""
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_BITS = {_UNSIGNED: {*range(8, 17), 32}, _SIGNED: {8, 16, 32}, _FLOAT: {16, 32, 64}}
"""Sample format -> numbers of bits that are read here."""
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_SAMPLES = 8
"""Most samples per pixel."""


class NotPlainError(Exception):
    """A TIFF that is not of plain samples."""


class PlainTiff(TiffImagePlugin.TiffImageFile, SampledFile):
    """A TIFF of plain samples: grey, RGB or CMYK of 8 bits or more. Raises NotPlainError for another."""

    def _setup(self) -> None:
        """Read the size and layout, where Pillow would look for one of its modes."""
        tags = self.tag_v2
        bits, formats = set(_values(tags.get(258, 1))), set(_values(tags.get(339, _UNSIGNED)))
        self._photometric: int = tags.get(262, -1)
        compression = tags.get(259, 1)
        if self._photometric not in _COLOURS or compression not in _COMPRESSIONS or len(bits | formats) > 2:
            raise NotPlainError
        (self._bits,), (self._kind,) = bits, formats
        if self._bits not in _BITS.get(self._kind, ()):
            raise NotPlainError
        width, height = tags.get(256), tags.get(257)
        if not isinstance(width, int) or not isinstance(height, int):
            raise ImageError("it is damaged: it has no size")
        self._size = self._tile_size = width, height
        self._mode = "RGB"
        if 34_675 in tags:
            self.info["icc_profile"] = tags[34_675]
        self._samples = tags.get(277, 1)
        self._extra = _values(tags.get(338, ()))
        self._check_layout(width, height)

    def _check_layout(self, width: int, height: int) -> None:
        colours = _COLOURS[self._photometric]
        if not isinstance(self._samples, int) or not colours <= self._samples <= _MOST_SAMPLES:
            raise ImageError(f"it is damaged or of a rare kind: {self._samples} samples per pixel")
        tags = self.tag_v2
        across, down = tags.get(322, width), tags.get(323, tags.get(278, height))
        if not isinstance(across, int) or not isinstance(down, int) or min(across, down) < 1:
            raise ImageError("it is damaged: its strips or tiles have no size")
        self._is_planar = tags.get(284, 1) == 2 and self._samples > 1
        planes = self._samples if self._is_planar else 1
        self._offsets = _values(tags.get(273, tags.get(324, ())))
        if len(self._offsets) != -(-width // across) * -(-height // min(down, height)) * planes:
            raise ImageError("it is damaged: its strips or tiles are not as many as its pixels need")
        if tags.get(32_997, 1) != 1 or tags.get(32_998, 1) != 1:
            raise ImageError("it is a volume of several depths: save one of them as a photo")

    def planes(self, notes: list[str]) -> Planes:
        """Decode the photo; integers of more than 16 bits and floating-point samples become 16 bits."""
        if self._kind == _SIGNED:
            raise ImageError("its samples are signed integers: convert it to 8 or 16-bit grey or RGB first")
        array = self._array()
        if self._kind == _FLOAT:
            array = from_floats(array, notes)
        else:
            if self._bits > 16:
                notes.append(f"its {self._bits} bits per channel are reduced to 16")
            array = scaled(array, self._bits)
        count = _COLOURS[self._photometric]
        colours, alpha = array[..., :count], None
        if self._photometric == _WHITE_IS_ZERO:
            colours = np.iinfo(array.dtype).max - colours
        kinds = {kind: count + place for place, kind in reversed(list(enumerate(self._extra)))}
        for kind in (_UNASSOCIATED, _ASSOCIATED):
            if alpha is None and kinds.get(kind, self._samples) < self._samples:
                alpha = array[..., kinds[kind]]
                colours = unassociated(colours, alpha) if kind == _ASSOCIATED else colours
        if count + (alpha is not None) < self._samples:
            notes.append("a channel that is neither colour nor transparency is dropped")
        return Planes(colours=colours, alpha=alpha)

    def _array(self) -> Array:
        """The stored samples, (H, W, S)."""
        import tifffile

        assert self.fp is not None
        data = self.fp.getvalue() if isinstance(self.fp, io.BytesIO) else self.fp.read()
        self._check_pieces(len(data))
        # Without its knowledge of microscopes' dialects, which store more than one picture in a page.
        dialects: dict[str, Any] = {f"is_{name}": False for name in tifffile.TIFF.FILE_FLAGS}
        with tifffile.TiffFile(io.BytesIO(data), **dialects) as file:
            array: Array = file.pages.first.asarray(maxworkers=1)
        width, height = self._tile_size
        if self._is_planar:
            return np.moveaxis(array.reshape(self._samples, height, width), 0, -1)
        return array.reshape(height, width, self._samples)

    def _check_pieces(self, length: int) -> None:
        """Raise ImageError unless all strips or tiles are in the file: tifffile leaves missing ones black."""
        tags = self.tag_v2
        sizes = _values(tags.get(279, tags.get(325, ())))
        if len(sizes) != len(self._offsets):
            raise ImageError("it is damaged: its strips or tiles have no size")
        if any(size <= 0 or start + size > length for start, size in zip(self._offsets, sizes, strict=True)):
            raise ImageError("it is truncated: strips or tiles of it are missing")


def _values(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
