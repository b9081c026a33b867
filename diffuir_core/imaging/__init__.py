"""Bytes to pixels and back: the only door through which a photo enters or leaves.

Reads JPEG, PNG, WebP, TIFF and BMP by their content and nothing else (an EPS renamed .jpg is refused).
Size limits are checked on the header, before anything is decoded, and so is how many pieces a file is made of,
each of which takes a decoder's time; a truncated file is refused unless asked.

What a photo carries, and what becomes of it:

    orientation         applied to the pixels and taken out of the EXIF
    ICC profile         kept and written back; a CMYK photo is converted through it to sRGB and loses it
    EXIF                descriptive tags and the camera's own block kept; GPS dropped unless asked; thumbnail, XMP
                        and IPTC dropped
    transparency        kept apart, untouched by the restorer, written back
    greyscale           comes back as greyscale; black-and-white (1 bit) comes back as greyscale
    palette             comes back as a palette, exact up to 256 colours, else the best 256
    16 bits             come back as 16 bits in PNG and TIFF: the restorer's change in 8 bits is added to the
                        original values; of a layout that Pillow has 8 bits of only, said so in `notes`
    several frames      the first one, said so in `notes`
"""

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
    Pixels,
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
