"""JPEG XL photos (ISO/IEC 18181): the header here, the pixels by pillow-jxl-plugin and imagecodecs (libjxl).

The plugin gives the ICC profile but decodes to 8 bits, imagecodecs all bits but no profile. Both apply the
header's orientation; EXIF's does not count (18181-2, 9.3).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from ..image import ImageError
from .bmff import boxes
from .missing import extra
from .sampled import Array, Planes, SampledFile, from_floats, scaled, unassociated
from .threads import CODEC_THREADS

_CONTAINER = b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a"
_CODESTREAM = b"\xff\x0a"
_FILE_TYPE = b"\x00\x00\x00\x14ftypjxl \x00\x00\x00\x00jxl "
_SRGB_CURVE = 13
"""Code of sRGB's transfer function (18181-1, D.3.5)."""
_LONGEST_METADATA = 16 * 2**20
"""Most bytes of compressed metadata once it is decompressed."""


@dataclass(frozen=True, kw_only=True)
class JxlHeader:
    """The header of a codestream, as far as it is needed (18181-1, annex D)."""

    width: int
    """Width before the orientation is applied, pixels."""
    height: int
    orientation: int = 1
    """1 .. 8, as in EXIF."""
    bits: int = 8
    is_float: bool = False
    is_animated: bool = False
    premultiplied: bool = False
    xyb: bool = True
    """Whether the colours are stored in XYB, as lossy encoders do."""
    is_srgb: bool = True
    """Whether the colours are sRGB, or grey with its curve, by the header itself and not by an ICC profile."""


def is_jxl(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG XL's."""
    return data.startswith((_CODESTREAM, _CONTAINER))


class JxlFile(SampledFile):
    """A JPEG XL photo. `info` has `exif` and `xmp`, and `icc_profile` once it is decoded."""

    format = "JXL"

    def _open(self) -> None:
        extra("pillow_jxl", "JPEG XL")
        assert isinstance(self.fp, io.BytesIO)
        self._data = self.fp.getvalue()
        codestream, kinds = self._data, set()
        if self._data.startswith(_CONTAINER):
            codestream = b""
            for kind, start, end in boxes(self._data):
                kinds.add(kind)
                if kind in (b"jxlc", b"jxlp") and not codestream:
                    codestream = self._data[start + 4 * (kind == b"jxlp") : start + 4096]
                elif kind == b"brob":
                    self._keep(self._data[start : start + 4], self._decompressed(start + 4, end))
                else:
                    self._keep(kind, self._data[start:end])
        header = read_header(codestream)
        self.header = header
        turned = header.orientation > 4
        self._size = (header.height, header.width) if turned else (header.width, header.height)
        self._mode, self.is_animated = "RGB", header.is_animated
        self.lossless = not header.xyb and b"jbrd" not in kinds

    def _decompressed(self, start: int, end: int) -> bytes:
        import imagecodecs

        try:
            return bytes(imagecodecs.brotli_decode(self._data[start:end], out=_LONGEST_METADATA))
        except RuntimeError:
            return b""

    def _keep(self, kind: bytes, content: bytes) -> None:
        if kind == b"Exif" and len(content) > 8:
            # Some writers leave out the offset of the block.
            has_offset = content[:2] not in (b"II", b"MM")
            block = content[4 + int.from_bytes(content[:4], "big") :] if has_offset else content
            self.info["exif"] = _without_orientation(b"Exif\0\0" + block)
        elif kind == b"xml " and content:
            self.info["xmp"] = content

    def planes(self, notes: list[str]) -> Planes:
        """Decode the first frame; other depths than 8 become 16 bits."""
        array = self._decode()
        if array.shape[1::-1] != self.size:
            raise ImageError("it is damaged: its size is not what its header says")
        if array.dtype.kind == "f":
            array = from_floats(array, notes)
        else:
            if self.header.bits > 16:
                notes.append(f"its {self.header.bits} bits per channel are reduced to 16")
            array = scaled(array, 8 if array.dtype == np.uint8 else self.header.bits)
        count = 3 if array.shape[-1] > 2 else 1
        colours, alpha = array[..., :count], array[..., count] if array.shape[-1] > count else None
        if alpha is not None and self.header.premultiplied:
            colours = unassociated(colours, alpha)
        return Planes(colours=colours, alpha=alpha)

    def _decode(self) -> Array:
        """The samples (H, W, C); keeps the ICC profile."""
        if self.header.is_srgb and (self.header.bits > 8 or self.header.is_float):
            return self._decode_deep()
        from pillow_jxl import Decoder

        is_jpeg, about, data, icc, _ = Decoder(num_threads=CODEC_THREADS)(self._data)
        if icc and not self.header.is_srgb:
            self.info["icc_profile"] = bytes(icc)
        if is_jpeg or self.header.bits > 8 or self.header.is_float:
            return self._decode_deep()
        channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[about.mode]
        return np.frombuffer(data, np.uint8).reshape(about.height, about.width, channels)

    def _decode_deep(self) -> Array:
        import imagecodecs

        array = imagecodecs.jpegxl_decode(self._data, index=0, numthreads=CODEC_THREADS)
        return array[..., None] if array.ndim == 2 else array


def read_header(codestream: bytes) -> JxlHeader:
    """Read the header of a codestream; raises ImageError for a damaged one."""
    if not codestream.startswith(_CODESTREAM):
        raise ImageError("it is damaged: its picture has no header")
    try:
        return _Bits(codestream[2:]).header()
    except EOFError as error:
        raise ImageError("it is damaged: its header ends too early") from error


class _Bits:
    """The bits of a header, the lowest of each byte first (18181-1, annex B)."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data[:4096], "little")
        self._length = self._left = 8 * min(len(data), 4096)
        self.transfer_at = 0
        """Position of the four bits that tell the transfer function, once the header is read."""

    def take(self, count: int) -> int:
        """The next `count` bits."""
        if count > self._left:
            raise EOFError
        value = self._number & (1 << count) - 1
        self._number >>= count
        self._left -= count
        return value

    def choose(self, *ways: tuple[int, int]) -> int:
        """A number of one of four ways, each (offset, bits), which two bits name (B.2.2)."""
        offset, bits = ways[self.take(2)]
        return offset + self.take(bits)

    def header(self) -> JxlHeader:
        """SizeHeader and ImageMetadata."""
        width, height = self.size()
        if self.take(1):
            return JxlHeader(width=width, height=height)
        orientation, animated, has_extra_fields = 1, False, self.take(1)
        if has_extra_fields:
            orientation = 1 + self.take(3)
            if self.take(1):
                self.size()
            if self.take(1):
                self.preview()
            animated = bool(self.take(1))
            if animated:
                self.choose((100, 0), (1000, 0), (1, 10), (1, 30))
                self.choose((1, 0), (1001, 0), (1, 8), (1, 10))
                self.choose((0, 0), (0, 3), (0, 16), (0, 32))
                self.take(1)
        bits, is_float = self.depth()
        self.take(1)
        channels = self.choose((0, 0), (1, 0), (2, 4), (1, 12))
        premultiplied = sum(self.extra_channel() for _ in range(channels)) > 0
        xyb, is_srgb = bool(self.take(1)), self.is_srgb()
        return JxlHeader(
            width=width,
            height=height,
            orientation=orientation,
            bits=bits,
            is_float=is_float,
            is_animated=animated,
            premultiplied=premultiplied,
            xyb=xyb,
            is_srgb=is_srgb,
        )

    def is_srgb(self) -> bool:
        """Whether the colour encoding (D.3.5) is sRGB, or grey with its curve."""
        if self.take(1):
            return True
        if self.take(1):
            return False
        space = self.enumerated()
        if space > 1 or self.enumerated() != 1 or (space == 0 and self.enumerated() != 1):
            return False
        if self.take(1):
            return False
        self.transfer_at = self._length - self._left + 2
        return self.enumerated() == _SRGB_CURVE

    def enumerated(self) -> int:
        """A number of a list of names (B.2.5)."""
        return self.choose((0, 0), (1, 0), (2, 4), (18, 6))

    def size(self) -> tuple[int, int]:
        """Width and height (D.2)."""
        small = self.take(1)
        height = self._side(small)
        ratio = self.take(3)
        if ratio == 0:
            return self._side(small), height
        across, down = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        return height * across // down, height

    def _side(self, small: int) -> int:
        return 8 * (1 + self.take(5)) if small else self.choose((1, 9), (1, 13), (1, 18), (1, 30))

    def preview(self) -> None:
        """The size of a preview."""
        in_eights = ((16, 0), (32, 0), (1, 5), (33, 9))
        ways = in_eights if self.take(1) else ((1, 6), (65, 8), (321, 10), (1345, 12))
        self.choose(*ways)
        if self.take(3) == 0:
            self.choose(*ways)

    def depth(self) -> tuple[int, bool]:
        """Bits per sample, and whether they are a floating-point number (D.3.2)."""
        if not self.take(1):
            return self.choose((8, 0), (10, 0), (12, 0), (1, 6)), False
        bits = self.choose((32, 0), (16, 0), (24, 0), (1, 6))
        self.take(4)
        return bits, True

    def extra_channel(self) -> bool:
        """Read the description of an extra channel (D.3.6): whether it is alpha that colours are multiplied by."""
        if self.take(1):
            return False
        kind = self.enumerated()
        self.depth()
        self.choose((0, 0), (3, 0), (4, 0), (1, 3))
        self.take(8 * self.choose((0, 0), (0, 4), (16, 5), (48, 10)))
        if kind == 2:
            self.take(64)
        elif kind == 5:
            self.choose((1, 0), (0, 2), (3, 4), (19, 8))
        return kind == 0 and bool(self.take(1))


def encode_jxl(
    samples: Array, quality: int, *, lossless: bool, exif: bytes | None, xmp: bytes | None
) -> bytes:
    """Encode uint8 or uint16 (H, W, 1 .. 4), sRGB, as a JPEG XL: 16 bits always without loss.

    quality: 1 .. 100, where it is not lossless. exif: a block that begins with its TIFF header.
    """
    import imagecodecs

    deep = samples.dtype == np.uint16
    options = {"lossless": True} if lossless or deep else {"level": quality}
    if samples.shape[-1] == 1:
        samples = samples[..., 0]
    encoded = bytes(
        imagecodecs.jpegxl_encode(
            np.ascontiguousarray(samples), usecontainer=False, numthreads=CODEC_THREADS, **options
        )
    )
    # Samples of more than 12 bits have a container of their own, which tells their level.
    at = next((start for kind, start, _ in boxes(encoded) if kind == b"jxlc"), 0)
    if deep:
        encoded = encoded[:at] + _labelled_srgb(encoded[at:])
    metadata = _box(b"Exif", bytes(4) + exif) if exif else b""
    metadata += _box(b"xml ", xmp) if xmp else b""
    if at:
        return encoded[: at - 8] + metadata + encoded[at - 8 :]
    return _CONTAINER + _FILE_TYPE + metadata + _box(b"jxlc", encoded) if metadata else encoded


def _labelled_srgb(codestream: bytes) -> bytes:
    """The codestream with sRGB's curve in its header, where imagecodecs has written that 16 bits are linear."""
    bits = _Bits(codestream[2:])
    if bits.header().is_srgb:
        return codestream
    number = int.from_bytes(codestream[2:66], "little")
    number = number & ~(0b1111 << bits.transfer_at) | _SRGB_CURVE - 2 << bits.transfer_at
    return codestream[:2] + number.to_bytes(len(codestream[2:66]), "little") + codestream[66:]


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def _without_orientation(exif: bytes) -> bytes:
    """The block with its orientation set to upright: the decoder has applied the codestream's."""
    order = {b"II": "little", b"MM": "big"}.get(exif[6:8])
    if order is None:
        return exif
    block = bytearray(exif)
    start = 6 + int.from_bytes(block[10:14], order)  # type: ignore[arg-type]
    for at in range(start + 2, min(start + 2 + 12 * 512, len(block) - 11), 12):
        if int.from_bytes(block[at : at + 2], order) == 274:  # type: ignore[arg-type]
            block[at + 8 : at + 10] = (1).to_bytes(2, order)  # type: ignore[arg-type]
            break
    return bytes(block)
