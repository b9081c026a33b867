"""Reading what a photo carries: found in its file, then kept by one policy whatever the format."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from PIL import AvifImagePlugin
from PIL import Image as Pillow

from ..formats.heif import coding_independent_colour
from ..formats.pillow_private import avif_exif
from ..image import ExifPolicy
from . import exif, exif_editing, jpeg_segments, photoshop, png_chunks, second_pictures, xmp
from .colour_space import ADOBE_RGB, ColourSpace
from .content import Metadata, Resolution, Unit, listed

_TRANSPOSE = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_KEEP_SIDES = (
    None,
    Pillow.Transpose.FLIP_LEFT_RIGHT,
    Pillow.Transpose.FLIP_TOP_BOTTOM,
    Pillow.Transpose.ROTATE_180,
)
_TURNED_BY_DECODER = ("HEIC", "JXL", "RAW")
"""Formats whose own orientation is applied by their decoders; that of their EXIF does not count."""
_XMP, _PHOTOSHOP, _IPTC = 700, 34377, 33723
LAYOUT_TAGS = frozenset((
    *range(254, 269), 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 290, 291, 292, 293, 296, 297,
    317, *range(320, 329), 330, 332, 334, 336, *range(338, 343), 347, *range(512, 522),
    529, 530, 531, 532, 559, 32781, 34675, exif.EXIF, exif.GPS, _XMP, _PHOTOSHOP, _IPTC, 50341,
))  # fmt: skip
"""Tags of a TIFF's first directory that say how its samples are stored, or that are read apart."""
_UNSAYING = {exif.ORIENTATION, exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT}
"""Tags that alone are no EXIF: the resolution is carried apart, and an upright photo has no orientation."""
_LONGEST_XMP = 2**24
_RAW_PROFILES = {
    **{"exif": "exif", "app1": "exif", "iptc": "iptc", "8bim": "iptc", "xmp": "xmp"},
    **{"icc": "icc", "icm": "icc"},
}
"""Name of metadata in ImageMagick's form -> what it is."""
_DAMAGED_PROFILE = "its colour profile is damaged and dropped"
_JPEG_LAYOUT = (jpeg_segments.APP0, jpeg_segments.APP14)
_QUIET_SEGMENTS = (
    *(jpeg_segments.EXIF[:5], jpeg_segments.XMP, jpeg_segments.DAMAGED_XMP, jpeg_segments.EXTENDED_XMP),
    *(jpeg_segments.ICC, jpeg_segments.PHOTOSHOP, b"MPF\0", b"urn:iso:std:iso:ts:21496:-1", b"Ducky"),
)
"""Starts of segments that are read, or that tell how the file was encoded."""


def orientation(data: bytes, picture: Pillow.Image) -> Pillow.Transpose | None:
    """The transposition that makes an opened picture upright, None for none."""
    return _turn(_found(data, picture, []), picture)


def read_metadata(
    data: bytes, picture: Pillow.Image, policy: ExifPolicy, notes: list[str]
) -> tuple[Pillow.Transpose | None, Metadata]:
    """The transposition that makes an opened picture upright, None for none, and what to keep of what it carries.

    The policy `none` keeps the colour space and the resolution; `without-gps` all but the place. What is dropped
    apart from that gets a line in `notes`.
    """
    found = _found(data, picture, [] if policy == "none" else notes)
    turn = _turn(found, picture)
    if picture.format in ("JPEG", "MPO"):
        notes += second_pictures.notes_of_jpeg(data, found.xmp)
    elif picture.format == "TIFF":
        notes += second_pictures.notes_of_tiff(data)
    else:
        notes += second_pictures.notes_of_info(data, picture.info)
        if getattr(picture, "is_animated", False):
            notes.append(second_pictures.FRAMES)
    if policy == "none":
        kept = Metadata(
            icc_profile=found.icc_profile,
            colour_space=found.colour_space or (None if found.icc_profile else told_by_exif(found.exif)),
            resolution=found.resolution or resolution_of_exif(found.exif),
            chunks=tuple(chunk for chunk in found.chunks if chunk[0] in png_chunks.COLOUR),
        )
    else:
        kept = _kept(found, turned(picture.size, turn), with_gps=policy == "with-gps", notes=notes)
        if picture.format == "TIFF" and kept.exif and exif.tags(kept.exif) <= _UNSAYING:
            kept = replace(kept, exif=None)
    if kept.resolution is not None and turn not in _KEEP_SIDES:
        across = kept.resolution
        kept = replace(kept, resolution=replace(across, x=across.y, y=across.x))
    return turn, kept


def turned(size: tuple[int, int], turn: Pillow.Transpose | None) -> tuple[int, int]:
    """The (width, height) of a picture after `turn`."""
    return size if turn in _KEEP_SIDES else size[::-1]


def _found(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    """All that a file carries, as it is there; what is known not to be kept gets a line in `notes`."""
    readers: dict[str | None, Callable[[bytes, Pillow.Image, list[str]], Metadata]] = {
        "JPEG": _find_in_jpeg,
        "MPO": _find_in_jpeg,
        "PNG": _find_in_png,
        "TIFF": _find_in_tiff,
        "BMP": _find_in_bmp,
    }
    found = readers.get(picture.format, _find_in_info)(data, picture, notes)
    if len(found.xmp or b"") > _LONGEST_XMP:
        notes.append("its XMP is too long and dropped")
        found = replace(found, xmp=None)
    return found


def _turn(found: Metadata, picture: Pillow.Image) -> Pillow.Transpose | None:
    if picture.format in _TURNED_BY_DECODER:
        return None
    if picture.format == "AVIF":
        # Only its header's orientation counts (ISO/IEC 23008-12, 6.5.10), which Pillow tells as EXIF's.
        told = picture.info.get("exif", b"").removeprefix(jpeg_segments.EXIF)
        return _TRANSPOSE.get(exif.first_integer(told, exif.ORIENTATION) or 1)
    number = exif.first_integer(found.exif, exif.ORIENTATION) if found.exif else None
    return _TRANSPOSE.get(xmp.orientation(found.xmp or b"") if number is None else number)


def _kept(found: Metadata, size: tuple[int, int], *, with_gps: bool, notes: list[str]) -> Metadata:
    """`found` with its EXIF and XMP edited for the upright photo of (width, height), by the policy on GPS."""
    block = found.exif
    if block is not None:
        try:
            block = exif_editing.edited(block, size, with_gps=with_gps)
        except exif.DamagedExifError as error:
            notes.append(f"its EXIF is damaged and dropped ({error})")
            block = None
    packets = []
    for packet in (found.xmp, found.extended_xmp):
        try:
            packets.append(None if packet is None else xmp.edited(packet, size, with_gps=with_gps))
        except xmp.UnreadableXmpError as error:
            notes.append(f"its XMP is damaged and dropped ({error})")
            packets.append(None)
    packet, extended = packets
    if packet is not None and extended is None and xmp.has_extension(packet):
        packet = xmp.without_extension(packet)
        notes.append("the second part of its XMP is not complete and dropped")
    chunks = found.chunks
    if not with_gps:
        chunks = tuple(
            (kind, body)
            for kind, body in chunks
            if kind not in png_chunks.TEXT or not png_chunks.tells_place(body)
        )
    return replace(
        found, exif=block, xmp=packet, extended_xmp=extended if packet is not None else None, chunks=chunks
    )


def _find_in_jpeg(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    segments = list(jpeg_segments.read(data))

    def bodies(marker: int, start: bytes) -> list[bytes]:
        return [body[len(start) :] for kind, body in segments if kind == marker and body.startswith(start)]

    block = b"".join(body[1:] for body in bodies(jpeg_segments.APP1, jpeg_segments.EXIF[:5]))
    starts = jpeg_segments.XMP, jpeg_segments.DAMAGED_XMP
    packet = next((body for start in starts for body in bodies(jpeg_segments.APP1, start)), None)
    blocks = b"".join(bodies(jpeg_segments.APP13, jpeg_segments.PHOTOSHOP))
    others = {
        f"APP{kind - 0xE0}"
        for kind, body in segments
        if 0xE0 <= kind <= 0xEF and kind not in _JPEG_LAYOUT and not body.startswith(_QUIET_SEGMENTS)
    }
    if others:
        notes.append(f"its segments {listed(others)} are not kept")
    icc = picture.info.get("icc_profile") or None
    if icc is None and bodies(jpeg_segments.APP2, jpeg_segments.ICC):
        notes.append(_DAMAGED_PROFILE)
    return Metadata(
        exif=block or None,
        xmp=packet or None,
        extended_xmp=jpeg_segments.extended_xmp(segments, packet),
        photoshop=photoshop.kept(blocks),
        comments=tuple(body for body in bodies(jpeg_segments.COMMENT, b"") if body.strip(b"\0 ")),
        resolution=_jfif_resolution(bodies(jpeg_segments.APP0, b"JFIF\0")) or photoshop.resolution(blocks),
        icc_profile=icc,
    )


def _jfif_resolution(bodies: list[bytes]) -> Resolution | None:
    """The resolution in a JFIF segment; one-to-one without a unit tells nothing."""
    for body in bodies:
        if len(body) >= 7:
            unit, x, y = body[2], int.from_bytes(body[3:5], "big"), int.from_bytes(body[5:7], "big")
            units: dict[int, Unit] = {0: "ratio", 1: "inch", 2: "centimetre"}
            if unit in units and x and y and (unit or x != y):
                return Resolution(Fraction(x), Fraction(y), units[unit])
    return None


def _find_in_png(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    kept: list[png_chunks.Chunk] = []
    found: dict[str, bytes] = {}
    lost = set()
    for kind, body in png_chunks.read(data):
        name = png_chunks.raw_profile_name(body) if kind in png_chunks.TEXT else None
        if kind == b"eXIf":
            found["exif"] = body
        elif kind == b"iTXt" and png_chunks.keyword(body) == png_chunks.XMP_KEYWORD:
            if "xmp" not in found:
                found["xmp"] = png_chunks.text(kind, body) or b""
        elif name in _RAW_PROFILES:
            name = _RAW_PROFILES[name]
            if name not in found:
                found[name] = png_chunks.raw_profile(kind, body)
        elif name is not None:
            lost.add(f"profile {name}")
        elif kind == b"pHYs":
            found["pHYs"] = body
        elif kind in png_chunks.TEXT | png_chunks.COLOUR | {b"tIME", b"sPLT"}:
            kept.append((kind, body))
        elif kind == b"iCCP":
            if not picture.info.get("icc_profile"):
                notes.append(_DAMAGED_PROFILE)
        elif kind not in png_chunks.LAYOUT:
            lost.add(kind.decode("latin-1"))
    if lost:
        notes.append(f"of its chunks {listed(lost)} are not kept")
    if found.get("xmp") == b"":
        notes.append("its XMP is damaged and dropped")
    colour = dict(kept)
    icc = picture.info.get("icc_profile") or found.get("icc") or None
    space = None
    if len(colour.get(b"cICP", b"")) == 4:
        space = ColourSpace.of_cicp(*colour[b"cICP"])
    elif icc is None and b"sRGB" not in colour:
        gamma, points = colour.get(b"gAMA", b""), colour.get(b"cHRM", b"")
        if len(gamma) == 4 or len(points) == 32:
            numbers = [int.from_bytes(points[at : at + 4], "big") for at in range(0, 32, 4)]
            space = ColourSpace.of_png(
                int.from_bytes(gamma, "big") or None, tuple(numbers) if len(points) == 32 else None
            )
    records = found.get("iptc") or b""
    if records and not records.startswith(b"8BIM"):
        records = photoshop.of_iptc(records)
    return Metadata(
        exif=found.get("exif", b"").removeprefix(jpeg_segments.EXIF) or None,
        xmp=found.get("xmp") or None,
        photoshop=photoshop.kept(records),
        chunks=tuple(kept),
        resolution=_png_resolution(found.get("pHYs", b"")),
        icc_profile=icc,
        colour_space=space if space and not space.is_srgb else None,
    )


def _png_resolution(body: bytes) -> Resolution | None:
    if len(body) != 9:
        return None
    x, y = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
    return Resolution(Fraction(x), Fraction(y), "metre" if body[8] == 1 else "ratio") if x and y else None


def _find_in_tiff(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    icc = picture.info.get("icc_profile") or None
    try:
        tiff = exif.Tiff(data)
        main, _ = tiff.directory(tiff.first)
    except exif.DamagedExifError:
        return Metadata(icc_profile=icc)
    parts = {entry.tag: entry for entry in main if entry.tag in (_XMP, _PHOTOSHOP, _IPTC)}
    values = {tag: tiff.value(entry) for tag, entry in parts.items()}
    lost = {entry.tag for entry in main} - LAYOUT_TAGS - exif.DESCRIPTIVE - exif.GEO_TAGS
    if lost:
        notes.append(f"its tags {listed(map(str, lost))} are not kept")
    blocks = photoshop.kept(values.get(_PHOTOSHOP) or b"")
    records = values.get(_IPTC)
    if records and photoshop.iptc(blocks) is None:
        blocks = (blocks or b"") + photoshop.of_iptc(records)
    return Metadata(
        exif=_block_of_tiff(tiff, notes),
        xmp=(values.get(_XMP) or b"").rstrip(b"\0") or None,
        photoshop=blocks,
        resolution=resolution_of_exif(data),
        icc_profile=icc,
    )


def _block_of_tiff(tiff: exif.Tiff, notes: list[str]) -> bytes | None:
    """An EXIF block of what describes the photo in a TIFF, and its orientation; None if that is nothing."""
    described = exif.DESCRIPTIVE | exif.GEO_TAGS | {exif.ORIENTATION}
    described |= {exif.X_RESOLUTION, exif.Y_RESOLUTION, exif.RESOLUTION_UNIT}
    try:
        return exif_editing.contents(tiff, with_gps=True, only=frozenset(described))
    except exif.DamagedExifError as error:
        notes.append(f"its EXIF is damaged and dropped ({error})")
        return None


def resolution_of_exif(block: bytes | None) -> Resolution | None:
    """The resolution in the first directory of an EXIF block or a TIFF (TIFF 6.0, tags 282, 283 and 296)."""
    try:
        tiff = exif.Tiff(block or b"")
        entries = {entry.tag: entry for entry in tiff.entries(tiff.first)}
        fractions = []
        for tag in (exif.X_RESOLUTION, exif.Y_RESOLUTION):
            value = tiff.value(entries[tag])
            if entries[tag].kind != exif.RATIONAL or value is None:
                return None
            fractions.append(Fraction(*struct.unpack_from(tiff.order + "II", value)))
        unit = tiff.integer(entries[exif.RESOLUTION_UNIT]) if exif.RESOLUTION_UNIT in entries else 2
    except (exif.DamagedExifError, KeyError, ZeroDivisionError):
        return None
    x, y = fractions
    units: dict[int | None, Unit] = {1: "ratio", 2: "inch", 3: "centimetre"}
    return Resolution(x, y, units[unit]) if unit in units and x and y and (unit != 1 or x != y) else None


def _find_in_bmp(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    """Pixels per metre, in a header of at least 40 bytes, and the ICC profile in a BITMAPV5HEADER."""
    length = int.from_bytes(data[14:18], "little")
    space = data[70:74][::-1] if length >= 108 else b""
    resolution = icc = None
    if length >= 40:
        x, y = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (38, 42))
        resolution = Resolution(Fraction(x), Fraction(y), "metre") if x > 0 and y > 0 else None
    if length >= 124 and space == b"MBED":
        start, size = (int.from_bytes(data[at : at + 4], "little") for at in (126, 130))
        icc = data[14 + start : 14 + start + size] if size >= 128 else None
    if space == b"LINK" or (space == bytes(4) and any(data[74:110])):
        notes.append("its colour space, of end points or in another file, is not kept")
    return Metadata(resolution=resolution, icc_profile=icc)


def _find_in_info(data: bytes, picture: Pillow.Image, notes: list[str]) -> Metadata:
    """The metadata of a WebP, HEIC, AVIF, JPEG XL or RAW photo, as its decoder has told it."""
    info = picture.info
    block, packet = info.get("exif") or b"", info.get("xmp") or b""
    if isinstance(picture, AvifImagePlugin.AvifImageFile):
        block = avif_exif(picture)
    icc = info.get("icc_profile") or None
    codes = coding_independent_colour(data) if picture.format in ("HEIC", "AVIF") and icc is None else None
    space = ColourSpace.of_cicp(*codes) if codes else None
    return Metadata(
        exif=block.removeprefix(jpeg_segments.EXIF) or None,
        xmp=packet.rstrip(b"\0") or None,
        icc_profile=icc,
        colour_space=space if space and not space.is_srgb else None,
    )


def told_by_exif(block: bytes | None) -> ColourSpace | None:
    """The colour space that EXIF tells; None for sRGB, and for EXIF that tells none."""
    if block is None:
        return None
    if exif.is_adobe_rgb(block):
        return ADOBE_RGB
    points = exif.chromaticities(block)
    space = ColourSpace.of_png(None, points) if points else None
    return space if space and not space.is_srgb else None
