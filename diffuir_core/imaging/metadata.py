"""A photo's orientation, and the EXIF that is kept."""

from __future__ import annotations

from PIL import ExifTags
from PIL import Image as Pillow

from .image import ExifPolicy, one_line

_TRANSPOSE = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}
_TAG = ExifTags.Base
# An allow-list: a TIFF's first directory also holds the file's layout and, in GeoTIFF, its position on the map.
_EXIF_KEPT = (
    _TAG.ImageDescription, _TAG.Make, _TAG.Model, _TAG.XResolution, _TAG.YResolution, _TAG.ResolutionUnit,
    _TAG.Software, _TAG.DateTime, _TAG.Artist, _TAG.HostComputer, _TAG.Rating, _TAG.RatingPercent,
    _TAG.Copyright, _TAG.XPTitle, _TAG.XPComment, _TAG.XPAuthor, _TAG.XPKeywords, _TAG.XPSubject,
)  # fmt: skip
_EXIF_LONGEST = 65_000  # bytes; a JPEG segment holds 65,533


def read_metadata(
    picture: Pillow.Image, policy: ExifPolicy, notes: list[str]
) -> tuple[Pillow.Transpose | None, bytes | None]:
    """The transposition that makes the picture upright, None for none, and the EXIF to keep.

    Damaged EXIF is dropped with a line in `notes`.
    """
    turn = None
    try:
        exif = picture.getexif()
        if picture.info.get("exif") and not len(exif):
            notes.append("its EXIF is damaged and dropped")
        turn = _TRANSPOSE.get(exif.get(_TAG.Orientation, 1))
        if policy == "none":
            return turn, None
        return turn, _select(exif, turned(picture.size, turn), with_gps=policy == "with-gps")
    except Exception as error:  # noqa: BLE001 - a camera's broken metadata is no reason to refuse its photo
        notes.append(f"its EXIF is damaged and dropped ({one_line(error)})")
        return turn, None


def turned(size: tuple[int, int], turn: Pillow.Transpose | None) -> tuple[int, int]:
    """The (width, height) of a picture after `turn`."""
    swaps_sides = turn is not None and turn not in (
        Pillow.Transpose.FLIP_LEFT_RIGHT,
        Pillow.Transpose.FLIP_TOP_BOTTOM,
        Pillow.Transpose.ROTATE_180,
    )
    return size[::-1] if swaps_sides else size


def _select(exif: Pillow.Exif, size: tuple[int, int], *, with_gps: bool) -> bytes | None:
    """The EXIF to write for an upright photo of (width, height); None if nothing is left to write."""
    kept = Pillow.Exif()
    for tag in _EXIF_KEPT:
        if tag in exif:
            kept[tag] = exif[tag]
    details = dict(exif.get_ifd(ExifTags.IFD.Exif))
    details.pop(ExifTags.IFD.Interop, None)
    if _TAG.ExifImageWidth in details:
        details[_TAG.ExifImageWidth], details[_TAG.ExifImageHeight] = size
    if details:
        kept[ExifTags.IFD.Exif] = details
    place = dict(exif.get_ifd(ExifTags.IFD.GPSInfo)) if with_gps else {}
    if place:
        kept[ExifTags.IFD.GPSInfo] = place
    if not len(kept):
        return None
    data = kept.tobytes()
    if len(data) > _EXIF_LONGEST and ExifTags.Base.MakerNote in details:
        del details[ExifTags.Base.MakerNote]
        data = kept.tobytes()
    return data if len(data) <= _EXIF_LONGEST else None
