"""Decoding and encoding of photos. All photos enter and leave through this package.

It reads and writes JPEG, PNG, WebP, TIFF, BMP, HEIC, AVIF and JPEG XL, and reads RAW photos, recognised by their
content (an EPS renamed to .jpg is refused). The libraries for HEIC, JPEG XL and RAW are those of the extra
`formats` and imported only for such a photo. Before anything is decoded, the header's size is checked against
limits, and so is the number of pieces that the file consists of, each of which costs a decoder time. A truncated
file is refused unless `decode` is told to accept it.

How the properties of a photo are preserved:

    orientation     applied to the pixels, and 1 in the EXIF and XMP
    EXIF            the same bytes, with the camera's own part, but for orientation and size; GPS and GeoTIFF are
                    removed and zeroed unless requested, as is the thumbnail, which shows the photo as it was. A
                    TIFF begins with it; that of a TIFF is built from its descriptive tags
    XMP             the same bytes but for orientation, size, claims about further pictures in the file and, unless
                    requested, the place
    IPTC, texts,    kept in JPEG, PNG and TIFF; texts of a PNG and comments of a JPEG become the one or the other,
    comments        or XMP. Names of places in captions stay
    resolution      kept, in EXIF where the format has none
    ICC profile     kept and written back; a CMYK photo is converted through it to sRGB and loses it
    other labels    cICP, gAMA, cHRM, sRGB, mDCV and cLLI stay the same chunks of a PNG; elsewhere an ICC profile
    of colours      says the same, as for Adobe RGB that EXIF alone tells. HDR (PQ, HLG) is kept in PNG and HEIC
    transparency    kept separately, not restored, written back
    greyscale       written as greyscale; so is black-and-white (1 bit)
    palette         written as a palette, exact up to 256 colours, else the best 256
    16 bits         written as 16 bits in PNG, TIFF and JPEG XL, as 10 or 12 in HEIC: the restorer's 8-bit change
                    is added to the original values; CMYK becomes 8 bits, with a note
    frames          the first one, with a note; so for gain maps, depth maps and films, but not for previews

The policy `none` keeps of all metadata the labels of colours and the resolution. What is lost gets a note:
`Image.notes` has those of reading, `lost_in` those of a format to write.
"""

from ..pixels import Pixels
from .decoding import decode, inspect
from .encoding import check_fits, encode, lost_in
from .formats.missing import MissingExtraError
from .image import (
    DEFAULT_LIMITS,
    EXIF_POLICIES,
    FORMAT_OF_SUFFIX,
    FORMATS,
    PHOTO_SUFFIXES,
    RAW_SUFFIXES,
    ExifPolicy,
    Header,
    Image,
    ImageError,
    Limits,
    OverLimitError,
    TooLargeError,
    UnknownFormatError,
    check_bytes,
    format_to_write,
)

__all__ = [
    "DEFAULT_LIMITS",
    "EXIF_POLICIES",
    "FORMATS",
    "FORMAT_OF_SUFFIX",
    "PHOTO_SUFFIXES",
    "RAW_SUFFIXES",
    "ExifPolicy",
    "Header",
    "Image",
    "ImageError",
    "Limits",
    "MissingExtraError",
    "OverLimitError",
    "Pixels",
    "TooLargeError",
    "UnknownFormatError",
    "check_bytes",
    "check_fits",
    "decode",
    "encode",
    "format_to_write",
    "inspect",
    "lost_in",
]
