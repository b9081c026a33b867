"""Fitting what a photo carries into a format, and the parts of files that hold it."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

from ..formats.srgb import is_srgb
from . import exif, exif_editing, jpeg_segments, photoshop, png_chunks, xmp
from .colour_space import ADOBE_RGB
from .content import Metadata, Resolution, listed
from .reading import resolution_of_exif, told_by_exif

_WITH_RESOLUTION = ("JPEG", "PNG", "TIFF", "BMP")
"""Formats that have a resolution outside EXIF."""
_WITHOUT_PROFILE = ("JXL",)
"""Formats for which our encoder writes no ICC profile."""
_LONGEST_EXIF = jpeg_segments.LONGEST - len(jpeg_segments.EXIF)
_LONGEST_XMP = jpeg_segments.LONGEST - len(jpeg_segments.XMP)


def fit(metadata: Metadata, format: str, *, grey: bool) -> tuple[Metadata, list[str]]:
    """`metadata` in the form that a format holds it in, and notes on what it can't hold.

    grey: whether the photo is written as greyscale, which has profiles of its own.
    """
    lost: list[str] = []
    fitted = _fit_texts(metadata, format, lost)
    fitted = _fit_exif(fitted, format, lost)
    fitted = _fit_xmp(fitted, format, lost)
    if fitted.photoshop and format not in ("JPEG", "PNG", "TIFF"):
        lost.append("IPTC" if photoshop.iptc(fitted.photoshop) else "Photoshop data")
        fitted = replace(fitted, photoshop=None)
    fitted = _fit_resolution(fitted, format, lost)
    fitted = _fit_colour(fitted, metadata, format, grey, lost)
    return fitted, [f"{format} cannot hold its {', '.join(lost)}"] if lost else []


def jpeg(data: bytes, metadata: Metadata) -> bytes:
    """A JPEG with metadata that fits one."""
    segments: list[jpeg_segments.Segment] = []
    if metadata.exif:
        segments.append((jpeg_segments.APP1, jpeg_segments.EXIF + metadata.exif))
    if metadata.xmp:
        segments += jpeg_segments.xmp_segments(metadata.xmp, metadata.extended_xmp)
    if metadata.photoshop:
        room = jpeg_segments.LONGEST - len(jpeg_segments.PHOTOSHOP)
        segments += [
            (jpeg_segments.APP13, jpeg_segments.PHOTOSHOP + metadata.photoshop[at : at + room])
            for at in range(0, len(metadata.photoshop), room)
        ]
    if metadata.icc_profile:
        segments += jpeg_segments.icc_segments(metadata.icc_profile)
    segments += [(jpeg_segments.COMMENT, comment) for comment in metadata.comments]
    return jpeg_segments.insert(data, segments, metadata.resolution)


def png(data: bytes, metadata: Metadata) -> bytes:
    """A PNG with metadata that fits one."""
    chunks = [chunk for chunk in metadata.chunks if chunk[0] in png_chunks.COLOUR]
    if metadata.icc_profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)))
    if metadata.resolution is not None:
        chunks.append((b"pHYs", _physical(metadata.resolution)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(png_chunks.xmp_chunk(metadata.xmp))
    if metadata.photoshop:
        chunks.append(png_chunks.raw_profile_chunk("iptc", metadata.photoshop))
    chunks += [chunk for chunk in metadata.chunks if chunk[0] not in png_chunks.COLOUR]
    return png_chunks.insert(data, chunks)


def bmp(data: bytes, metadata: Metadata) -> bytes:
    """A BMP with the resolution and the ICC profile of `metadata`, which a BITMAPV5HEADER holds."""
    length = int.from_bytes(data[14:18], "little")
    header = bytearray(data[14 : 14 + length])
    pair = metadata.resolution.per("metre") if metadata.resolution else None
    header[24:32] = struct.pack("<II", *(_whole(number, 2**31 - 1) for number in pair)) if pair else bytes(8)
    body, profile = data[14 + length :], metadata.icc_profile or b""
    if profile:
        if length < 108:
            # The masks of the colours, which count in other bit depths only, and the rest.
            header = header.ljust(108, b"\0")
        header[56:60] = b"DEBM"  # an embedded profile
        header = header.ljust(124, b"\0")
        header[108:124] = struct.pack("<IIII", 4, 124 + len(body), len(profile), 0)
        header[:4] = struct.pack("<I", 124)
    start = int.from_bytes(data[10:14], "little") + len(header) - length
    total = 14 + len(header) + len(body) + len(profile)
    return struct.pack("<2sIHHI", b"BM", total, 0, 0, start) + bytes(header) + body + profile


def info(metadata: Metadata) -> dict[str, Any]:
    """EXIF, XMP and ICC profile as the options that Pillow's and the extra formats' encoders take."""
    parts = {
        "exif": jpeg_segments.EXIF + metadata.exif if metadata.exif else None,
        "xmp": metadata.xmp,
        "icc_profile": metadata.icc_profile,
    }
    return {name: part for name, part in parts.items() if part}


def _fit_texts(metadata: Metadata, format: str, lost: list[str]) -> Metadata:
    """Texts of a PNG and comments of a JPEG, as the one or the other, or in the XMP."""
    if format == "PNG":
        added = [png_chunks.text_chunk("Comment", _decoded(comment)) for comment in metadata.comments]
        return replace(metadata, comments=(), chunks=(*metadata.chunks, *added))
    texts = png_chunks.texts(metadata.chunks)
    others = {
        kind.decode("latin-1")
        for kind, _ in metadata.chunks
        if kind not in png_chunks.PROFILED | png_chunks.TEXT | {b"tIME"}
    }
    comments = metadata.comments
    if format == "JPEG":
        comments += tuple(text.encode() for keyword, text in texts if keyword == "Comment")
        texts = [(keyword, text) for keyword, text in texts if keyword != "Comment"]
        if any(len(comment) > jpeg_segments.LONGEST for comment in comments):
            lost.append("comment")
            comments = tuple(comment for comment in comments if len(comment) <= jpeg_segments.LONGEST)
    else:
        texts += [("Comment", _decoded(comment)) for comment in comments]
        comments = ()
    packet, left = metadata.xmp, [keyword for keyword, _ in texts]
    if format != "BMP":
        packet, left = xmp.with_texts(packet, texts)
    if left:
        lost.append(f"text ({listed(left)})")
    if others:
        lost.append(f"chunks {listed(others)}")
    return replace(metadata, xmp=packet, comments=comments, chunks=())


def _decoded(comment: bytes) -> str:
    """A JPEG's comment, which is in no stated encoding: UTF-8 if it can be, else Latin-1."""
    comment = comment.rstrip(b"\0")
    try:
        return comment.decode()
    except UnicodeDecodeError:
        return comment.decode("latin-1")


def _fit_exif(metadata: Metadata, format: str, lost: list[str]) -> Metadata:
    block = metadata.exif
    if block is not None and format == "AVIF":
        # Pillow writes a block with an orientation anew, which garbles its texts.
        return replace(metadata, exif=exif_editing.without_orientation(block))
    if block is None or (format != "BMP" and (format != "JPEG" or len(block) <= _LONGEST_EXIF)):
        return metadata
    if format == "JPEG":
        shorter = _without_maker_note(block)
        if shorter is not None and len(shorter) <= _LONGEST_EXIF:
            lost.append("camera's own part of the EXIF (MakerNote), which is too long")
            return replace(metadata, exif=shorter)
        lost.append("EXIF, which is too long")
    else:
        lost.append("EXIF")
    return replace(metadata, exif=None)


def _without_maker_note(block: bytes) -> bytes | None:
    """A shorter block of the same tags; None if they are too many."""
    try:
        return exif_editing.contents(exif.Tiff(block), with_gps=True, without=frozenset((exif.MAKER_NOTE,)))
    except exif.DamagedExifError:
        return None


def _fit_xmp(metadata: Metadata, format: str, lost: list[str]) -> Metadata:
    packet, extended = metadata.xmp, metadata.extended_xmp
    if extended is not None and format not in ("JPEG", "BMP"):
        lost.append("second part of the XMP")
        packet, extended = xmp.without_extension(packet or b""), None
    if packet is not None and (format == "BMP" or (format == "JPEG" and len(packet) > _LONGEST_XMP)):
        lost.append("XMP" if format == "BMP" else "XMP, which is too long")
        packet = extended = None
    return replace(metadata, xmp=packet, extended_xmp=extended)


def _fit_resolution(metadata: Metadata, format: str, lost: list[str]) -> Metadata:
    """The resolution, in a format without one as the EXIF's."""
    resolution = metadata.resolution
    if resolution is None or (format in _WITH_RESOLUTION and (format, resolution.unit) != ("BMP", "ratio")):
        return metadata
    pair = resolution.per("inch")
    if format != "BMP" and pair is not None:
        if metadata.exif is None:
            entries = exif_resolution(resolution)
            return replace(metadata, resolution=None, exif=exif_editing.built("<", entries, {}))
        told = resolution_of_exif(metadata.exif)
        told_pair = told.per("inch") if told else None
        if told_pair and all(abs(one / other - 1) < 0.01 for one, other in zip(told_pair, pair, strict=True)):
            return replace(metadata, resolution=None)
    lost.append("resolution" if pair else "pixels' shape")
    return replace(metadata, resolution=None)


def exif_resolution(resolution: Resolution, order: str = "<") -> dict[int, exif.Value]:
    """The tags of a resolution in a TIFF or EXIF block (TIFF 6.0, section 8); order as in `struct`."""
    unit, pair = 2, resolution.per("inch")
    if pair is None:
        unit, pair = 1, (resolution.x, resolution.y)
    elif resolution.unit != "inch" and any(number.denominator > 1 for number in pair):
        unit, pair = 3, resolution.per("centimetre") or pair
    x, y = (number.limit_denominator(10_000) for number in pair)
    x_bytes, y_bytes = (
        struct.pack(order + "II", min(number.numerator, 2**32 - 1), number.denominator) for number in (x, y)
    )
    return {
        exif.X_RESOLUTION: (exif.RATIONAL, 1, x_bytes),
        exif.Y_RESOLUTION: (exif.RATIONAL, 1, y_bytes),
        exif.RESOLUTION_UNIT: (exif.SHORT, 1, struct.pack(order + "H", unit)),
    }


def _fit_colour(fitted: Metadata, metadata: Metadata, format: str, grey: bool, lost: list[str]) -> Metadata:
    """The ICC profile if it fits the mode and the format, and one of ours for a colour space told otherwise.

    fitted: with the EXIF that is written; metadata: as it was.
    """
    profile, space = fitted.icc_profile, fitted.colour_space
    if profile and profile[16:20] != (b"GRAY" if grey else b"RGB "):  # its colour space (ICC.1, 7.2.6)
        lost.append("colour profile, which is for another kind of colours")
        profile = None
    if format == "PNG" and space is not None:
        if any(kind in png_chunks.COLOUR for kind, _ in fitted.chunks):
            return replace(fitted, icc_profile=profile)
        if space.cicp:
            # The samples of a PNG are RGB (matrix 0) in full range (PNG specification, 11.3.2.6).
            codes = bytes((space.cicp[0], space.cicp[1], 0, 1))
            # A profile too, for readers that do not know these codes.
            profile = profile or space.profile(grey=grey)
            return replace(fitted, icc_profile=profile, chunks=((b"cICP", codes), *fitted.chunks))
    if format == "HEIC" and space is not None and space.cicp:
        return replace(fitted, icc_profile=profile)
    if space is None and profile is None:
        told = told_by_exif(metadata.exif)
        # Few readers look for it in the EXIF of another format than JPEG, or for chromaticities than TIFF.
        holds_it = format == "JPEG" or (format == "TIFF" and told is not ADOBE_RGB)
        is_told_otherwise = any(kind in png_chunks.COLOUR for kind, _ in fitted.chunks)
        space = None if (fitted.exif and holds_it) or is_told_otherwise else told
    if space is not None and profile is None:
        profile = space.profile(grey=grey)
        if profile is None:
            lost.append(f"colour space ({space.hdr or space.name})")
    elif space is not None and space.hdr:
        lost.append(f"colour space ({space.hdr})")
    if profile and format in _WITHOUT_PROFILE and not is_srgb(profile):
        # It stays for the encoder, which converts by it.
        lost.append("colour profile (its colours are converted to sRGB)")
    return replace(fitted, icc_profile=profile)


def _physical(resolution: Resolution) -> bytes:
    """The data of a pHYs chunk (PNG specification, 11.3.4.3)."""
    pair = resolution.per("metre")
    x, y = pair or (resolution.x, resolution.y)
    return struct.pack(">IIB", _whole(x, 2**31 - 1), _whole(y, 2**31 - 1), 1 if pair else 0)


def _whole(number: Any, most: int) -> int:
    return min(max(round(number), 1), most)
