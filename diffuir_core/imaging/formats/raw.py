"""RAW photos of all makes, developed by LibRaw (rawpy): sRGB, the camera's white balance, upright, 16 bits."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image as Pillow

from ..image import RAW, ImageError
from ..metadata.colour_space import ColourSpace
from ..metadata.exif import COLOUR_SPACE, DESCRIPTIVE, EXIF, GPS, Tiff, Value
from ..metadata.exif_editing import built, contents
from .bmff import major_brand
from .missing import extra
from .sampled import Planes, SampledFile

_MAGIC = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
"""First bytes of RAF, ORF (three), RW2, X3F and MRW. The others are TIFFs or, CR3, of boxes."""
_DNG_VERSION, _SUB_DIRECTORIES, _PHOTOMETRIC = 50_706, 330, 262
_SENSOR = {32_803, 34_892}
"""Photometric interpretations of a sensor's samples: a colour filter array, linear RAW (DNG specification)."""
_MOST_DIRECTORIES = 32
_NOT_SRGB = frozenset((COLOUR_SPACE,))
"""EXIF's tag for the colour space of the camera's own JPEGs."""
_UNKNOWN = "it is a RAW photo of a camera or kind that is not known: convert it to DNG or TIFF"
_LONGEST_HEAD = 2**20
"""Bytes within which a CR3 has its EXIF."""


def is_raw(data: bytes) -> bool:
    """Whether the bytes begin as a RAW photo's; a TIFF is one if a directory of it is a sensor's samples."""
    if data.startswith(_MAGIC) or major_brand(data) == b"crx ":
        return True
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if data[8:10] == b"CR" and data[10:11] == b"\2":
        return True
    return any(_DNG_VERSION in one or one.get(_PHOTOMETRIC) in _SENSOR for one in _directories(data))


def _directories(data: bytes) -> Iterator[dict[int, int]]:
    """Yield the directories of a TIFF with those below them: tag -> its first value, for integers."""
    order = "<" if data[:1] == b"I" else ">"
    ahead = [struct.unpack_from(order + "I", data, 4)[0]] if len(data) >= 8 else []
    seen: set[int] = set()
    while ahead and len(seen) < _MOST_DIRECTORIES:
        start = ahead.pop(0)
        if start in seen or not 8 <= start <= len(data) - 2:
            continue
        seen.add(start)
        entries: dict[int, int] = {}
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, at)
            value = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 8)[0]
            entries.setdefault(tag, value)
            if tag == _SUB_DIRECTORIES:
                places = min(number, 8)
                first = at + 8 if number == 1 else value
                if first + 4 * places <= len(data):
                    ahead.extend(struct.unpack_from(f"{order}{places}I", data, first))
        yield entries
        after = start + 2 + 12 * count
        if after + 4 <= len(data):
            ahead.append(struct.unpack_from(order + "I", data, after)[0])


class RawFile(SampledFile):
    """A RAW photo; `info` has its EXIF, as far as it can be read."""

    format = RAW

    def _open(self) -> None:
        rawpy = extra("rawpy", RAW)
        assert isinstance(self.fp, io.BytesIO)
        self._raw: Any = rawpy.RawPy()
        try:
            self._raw.open_buffer(io.BytesIO(self.fp.getvalue()))
        except rawpy.LibRawFileUnsupportedError as error:
            raise ImageError(_UNKNOWN) from error
        sizes = self._raw.sizes
        turned = sizes.flip & 4  # as dcraw counts: mirrored 1, upside down 2, sides exchanged 4
        width, height = sizes.iwidth or sizes.width, sizes.iheight or sizes.height
        self._size = (height, width) if turned else (width, height)
        self.stored_pixels = max(sizes.raw_width * sizes.raw_height, sizes.width * sizes.height)
        """Pixels of the sensor with its margins, which LibRaw decodes too."""
        self._mode = "RGB"
        exif = _exif(self.fp.getvalue())
        if exif:
            self.info["exif"] = exif
        self.info["icc_profile"] = ColourSpace("sRGB").profile(grey=False)

    def planes(self, notes: list[str]) -> Planes:
        """Develop the photo: exposed as the camera did, without LibRaw's automatic brightening."""
        import rawpy

        notes.append("developed from RAW to sRGB with the camera's white balance")
        if "exif" not in self.info:
            notes.append("its EXIF cannot be read and is dropped")
        try:
            with self._raw as raw:
                raw.unpack()
                samples = raw.postprocess(
                    use_camera_wb=True,
                    no_auto_bright=True,
                    output_bps=16,
                    output_color=rawpy.ColorSpace.sRGB,
                    gamma=(2.4, 12.92),
                )
        except (rawpy.LibRawFileUnsupportedError, rawpy.LibRawNotImplementedError) as error:
            raise ImageError(_UNKNOWN) from error
        return Planes(colours=samples[..., :3])


def _exif(data: bytes) -> bytes | None:
    """The EXIF of a RAW photo as a block of its own; None where it has none that can be read."""
    try:
        if data[:2] in (b"II", b"MM"):
            # ORF and RW2 have another number where TIFF has 42.
            block = data[:2] + (b"*\0" if data[:2] == b"II" else b"\0*") + data[4:]
        elif data.startswith(b"FUJIFILMCCD-RAW"):
            start, length = struct.unpack_from(">II", data, 84)
            preview = Pillow.open(io.BytesIO(data[start : start + length]), formats=("JPEG",))
            block = preview.info.get("exif", b"").removeprefix(b"Exif\0\0")
        else:
            return _exif_of_cr3(data)
        return contents(Tiff(block), with_gps=True, only=DESCRIPTIVE, without=_NOT_SRGB)
    except Exception:  # noqa: BLE001 - a camera's broken metadata is no reason to refuse its photo
        return None


def _exif_of_cr3(data: bytes) -> bytes | None:
    """The EXIF of a CR3, whose boxes CMT1, CMT2 and CMT4 hold its directories one by one."""
    directories: list[dict[int, Value]] = []
    order = "<"
    for name in (b"CMT1", b"CMT2", b"CMT4"):
        at = data.find(name, 0, _LONGEST_HEAD)
        values: dict[int, Value] = {}
        if at >= 4:
            tiff = Tiff(data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")])
            order = tiff.order
            for entry in tiff.entries(tiff.first):
                value = tiff.value(entry)
                if value and entry.tag not in _NOT_SRGB and (name != b"CMT1" or entry.tag in DESCRIPTIVE):
                    values[entry.tag] = entry.kind, entry.count, value
        directories.append(values)
    main, details, place = directories
    return built(order, main, {EXIF: details, GPS: place}) if main or details else None
