"""HEIC photos (ISO/IEC 23008-12), read and written by pillow-heif, and AVIF photos of more than 8 bits.

Both decoders turn nothing twice: libheif applies a file's own rotation, and EXIF's then counts no more; Pillow
reports the rotation of an AVIF as EXIF's, and neither it nor imagecodecs applies it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import AvifImagePlugin

from ..image import ImageError, Samples
from .bmff import brands, major_brand
from .missing import extra
from .sampled import Array, Planes, SampledFile, in_blocks, scaled, unassociated
from .threads import CODEC_THREADS

_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_LONGEST_HEAD = 2**20
"""Bytes within which a file has the boxes that describe its pictures."""
IDENTITY = 0
"""Matrix of RGB stored as it is (ITU-T H.273, table 4), which lossless encoders use."""


def is_avif(data: bytes) -> bool:
    """Whether the bytes begin as an AVIF's."""
    return bool(brands(data) & _AVIF_BRANDS)


def is_heic(data: bytes) -> bool:
    """Whether the bytes begin as a HEIC's, or as another HEIF's that is no AVIF."""
    return not is_avif(data) and bool(brands(data) & _HEVC_BRANDS or major_brand(data) in (b"mif1", b"msf1"))


class HeicFile(SampledFile):
    """A HEIC photo. `info` has `exif`, `xmp`, `icc_profile` and `nclx_profile` as far as the file does, and `aux`
    and `depth_images`, which name further pictures of the scene."""

    format = "HEIC"

    def _open(self) -> None:
        pillow_heif = extra("pillow_heif", "HEIC")
        assert self.fp is not None
        file = pillow_heif.HeifFile(self.fp, convert_hdr_to_8bit=False)
        self._heif: Any = file[file.primary_index]
        self._size, self._mode = self._heif.size, "RGB"
        self.info.update({name: value for name, value in self._heif.info.items() if value})
        pillow_heif.set_orientation(self.info)
        self.is_animated = len(file) > 1
        self.n_frames = len(file)
        self.lossless = self.info.get("nclx_profile", {}).get("matrix_coefficients") == IDENTITY

    def planes(self, notes: list[str]) -> Planes:
        """Decode the primary picture; 10 and 12 bits become 16 at full range."""
        array = np.asarray(self._heif)[:, : self._heif.size[0]]
        if self._heif.size != self.size:
            raise ImageError("it is damaged: its size is not what its header says")
        array = array[..., None] if array.ndim == 2 else array
        if array.dtype != np.uint8:
            self.bits = int(self.info["bit_depth"])
            array = scaled(array >> np.uint16(16 - self.bits), self.bits)
        mode = self._heif.mode
        count = 3 if mode.startswith("RGB") else 1
        colours, alpha = array[..., :count], array[..., count] if array.shape[-1] > count else None
        if alpha is not None and self._heif.premultiplied_alpha:
            colours = unassociated(colours, alpha)
        return Planes(colours=colours, alpha=alpha)


class DeepAvif(AvifImagePlugin.AvifImageFile, SampledFile):
    """An AVIF of more than 8 bits, whose header and metadata are Pillow's."""

    def planes(self, notes: list[str]) -> Planes:
        """Decode the first picture; 10 and 12 bits become 16 at full range."""
        import imagecodecs

        assert isinstance(self.fp, io.BytesIO)
        data = self.fp.getvalue()
        self.lossless = is_lossless_avif(data)
        array = imagecodecs.avif_decode(data, index=0, numthreads=CODEC_THREADS)
        self.bits = avif_bits(data)
        array = scaled(array[..., None] if array.ndim == 2 else array, self.bits)
        if array.shape[1::-1] != self.size:
            raise ImageError("it is damaged: its size is not what its header says")
        count = 3 if array.shape[-1] > 2 else 1
        return Planes(
            colours=array[..., :count], alpha=array[..., count] if array.shape[-1] > count else None
        )


def avif_bits(data: bytes) -> int:
    """Bits per channel of an AVIF: 8, 10 or 12, from the box av1C (AV1-ISOBMFF, 2.3.3)."""
    at = data.find(b"av1C", 0, _LONGEST_HEAD)
    flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def coding_independent_colour(data: bytes) -> tuple[int, int, int, int] | None:
    """Primaries, transfer, matrix and full range (ITU-T H.273) that an AVIF or HEIC tells; None if it does not."""
    at = data.find(b"colrnclx", 0, _LONGEST_HEAD)
    if not 0 <= at <= len(data) - 15:
        return None
    numbers = (int.from_bytes(data[at + start : at + start + 2], "big") for start in (8, 10, 12))
    return (*numbers, data[at + 14] >> 7)  # type: ignore[return-value]


def is_lossless_avif(data: bytes) -> bool:
    """Whether an AVIF stores RGB as it is, which only encoders without loss do."""
    colour = coding_independent_colour(data)
    return colour is not None and colour[2] == IDENTITY


def encode_heic(
    samples: Samples | Array, quality: int, *, lossless: bool, bits: int, info: dict[str, Any]
) -> bytes:
    """Encode uint8 or uint16 (H, W, 1, 3 or 4) as a HEIC.

    quality: 1 .. 100. lossless: whether the samples are to come back exactly as they are, within `bits`, which is
    8, 10 or 12. info: `exif`, `xmp`, `icc_profile` and `nclx_profile`, as in HeicFile's. Raises ImageError without
    the extra.
    """
    pillow_heif = extra("pillow_heif", "HEIC", "write")
    height, width, count = samples.shape
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[count] + ("" if samples.dtype == np.uint8 else ";16")
    options: dict[str, Any] = dict(info)
    if lossless:
        options |= {"quality": -1, "chroma": 444, "matrix_coefficients": IDENTITY, "full_range_flag": 1}
        colour = info.get("nclx_profile") or {"color_primaries": 1, "transfer_characteristics": 13}
        options |= {name: colour[name] for name in ("color_primaries", "transfer_characteristics")}
        options.pop("nclx_profile", None)
    else:
        # As cameras do, and as what shows HEIC in hardware needs.
        options |= {"quality": quality, "chroma": 420}
    if samples.dtype != np.uint8:
        samples = in_blocks(samples, np.uint16, lambda block: _within(block, bits))
    buffer = io.BytesIO()
    data = np.ascontiguousarray(samples).tobytes()
    pillow_heif.encode(mode, (width, height), data, buffer, bit_depth=bits, **options)
    return buffer.getvalue()


def _within(values: Array, bits: int) -> Array:
    """Full-range 16-bit samples, rounded to the nearest level of `bits` bits, in the highest bits of each."""
    return np.rint(values * ((2**bits - 1) / 65_535)).astype(np.uint16) << np.uint16(16 - bits)
