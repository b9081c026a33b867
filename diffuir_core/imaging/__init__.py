"""Decoding and encoding of photos. All photos enter and leave through this package.

It reads JPEG, PNG, WebP, TIFF and BMP, recognised by their content (an EPS renamed to .jpg is refused). Before
anything is decoded, the header's size is checked against limits, and so is the number of pieces that the file
consists of, each of which costs a decoder time. A truncated file is refused unless `decode` is told to accept it.

How the properties of a photo are preserved:

    orientation         applied to the pixels and removed from the EXIF
    ICC profile         kept and written back; a CMYK photo is converted through it to sRGB and loses it
    EXIF                descriptive tags and the camera's own block kept; GPS dropped unless requested; thumbnail,
                        XMP and IPTC dropped
    transparency        kept separately, not restored, written back
    greyscale           written as greyscale; so is black-and-white (1 bit)
    palette             written as a palette, exact up to 256 colours, else the best 256
    16 bits             written as 16 bits in PNG and TIFF: the restorer's 8-bit change is added to the original
                        values; a layout that Pillow reads in 8 bits only becomes 8 bits, with a note
    several frames      the first one, with a note
"""

from ..pixels import Pixels
from .decoding import decode, inspect
from .encoding import check_fits, encode
from .image import (
    DEFAULT_LIMITS,
    EXIF_POLICIES,
    FORMAT_OF_SUFFIX,
    FORMATS,
    ExifPolicy,
    Header,
    Image,
    ImageError,
    Limits,
    TooLargeError,
    UnknownFormatError,
    check_bytes,
)

__all__ = [
    "DEFAULT_LIMITS",
    "EXIF_POLICIES",
    "FORMATS",
    "FORMAT_OF_SUFFIX",
    "ExifPolicy",
    "Header",
    "Image",
    "ImageError",
    "Limits",
    "Pixels",
    "TooLargeError",
    "UnknownFormatError",
    "check_bytes",
    "check_fits",
    "decode",
    "encode",
    "inspect",
]
