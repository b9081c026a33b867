"""Photos in MATLAB files, the form in which the under-display challenge distributes TOLED and POLED.

A file such as poled_test_display.mat holds one array, uint8 (N, H, W, 3) RGB, named test_display; its clean
counterpart poled_test_gt.mat holds test_gt (val_display and val_gt for the other split). The URI of one photo in
it is `FILE.mat#ARRAY/NUMBER`. Formats up to 7 are read, but not 7.3, which is HDF5.
"""

from __future__ import annotations

import io
import re
import struct
import threading
import zlib
from typing import Any

import numpy as np
from cachetools import LRUCache
from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels

from .. import storage

ARRAYS_KEPT = 2
"""Arrays cached, one for each side of a file's pairs: half a gigabyte for the published files."""

_ELEMENT = re.compile(r"(?P<file>.+\.mat)#(?P<array>\w+)/(?P<number>\d+)")
_lock = threading.Lock()
_shapes: LRUCache[tuple[str, str], tuple[int, int, int]] = LRUCache(64)
_arrays: LRUCache[tuple[str, str], Pixels] = LRUCache(ARRAYS_KEPT)


def is_element(uri: str) -> bool:
    """Whether `uri` names one photo of a MATLAB file."""
    return _ELEMENT.fullmatch(uri) is not None


def file_of(uri: str) -> str:
    """Return the file that holds the photo `uri`: the MATLAB file of a photo in one, else `uri` itself."""
    found = _ELEMENT.fullmatch(uri)
    return uri if found is None else found["file"]


def elements(uri: str, array: str) -> list[str]:
    """Return the suffix of the URI of each photo in the file at `uri`, in order; reads the file's header only."""
    return [f"#{array}/{number}" for number in range(_shape(uri, array)[0])]


def size(uri: str) -> tuple[int, int]:
    """Return (width, height) of one photo; reads the file's header only."""
    file, array, _ = _parts(uri)
    _, height, width = _shape(file, array)
    return width, height


def read_png(uri: str) -> bytes:
    """Return one photo as a PNG file, without loss, so that every row of an index gives an image file."""
    file, array, number = _parts(uri)
    photos = _array(file, array)
    if number >= len(photos):
        raise storage.NotThere(
            f"{file} holds {len(photos)} photos, not a photo {number}: make the index again"
        )
    out = io.BytesIO()
    Image.fromarray(photos[number]).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _parts(uri: str) -> tuple[str, str, int]:
    found = _ELEMENT.fullmatch(uri)
    if found is None:
        raise UserError(f"{uri} does not name a photo of a MATLAB file: write FILE.mat#ARRAY/NUMBER")
    return found["file"], found["array"], int(found["number"])


def _shape(uri: str, array: str) -> tuple[int, int, int]:
    """Return (N, H, W) of an array; raises `UserError` where the file has none of that name and type."""
    from scipy.io import whosmat

    with _lock:
        if (uri, array) not in _shapes:
            arrays = {name: (shape, kind) for name, shape, kind in _scipy(whosmat, uri)}
            if array not in arrays:
                there = ", ".join(sorted(arrays)) or "nothing"
                raise UserError(f"{uri} holds {there} and not the array {array}: rename it in the file")
            shape, kind = arrays[array]
            if kind != "uint8" or len(shape) != 4 or shape[3] != 3:
                raise UserError(f"{array} of {uri} is {kind} {shape}: it must be uint8 (N, H, W, 3)")
            _shapes[uri, array] = shape[:3]
        return _shapes[uri, array]


def _array(uri: str, array: str) -> Pixels:
    from scipy.io import loadmat

    _shape(uri, array)
    with _lock:
        if (uri, array) not in _arrays:
            loaded = _scipy(loadmat, uri, variable_names=[array])[array]
            # MATLAB stores the first axis contiguously; a photo is read faster where its own pixels are.
            _arrays[uri, array] = np.ascontiguousarray(loaded)
        return _arrays[uri, array]


def _scipy(function: Any, uri: str, **options: Any) -> Any:
    from scipy.io.matlab import MatReadError

    with storage.translated_errors(uri, "read"), storage.open_file(uri) as file:
        try:
            return function(file, **options)
        except NotImplementedError as error:
            raise UserError(f"{uri} is a MATLAB 7.3 file: save it again with -v7") from error
        except (MatReadError, ValueError, TypeError, KeyError, EOFError, struct.error, zlib.error) as error:
            raise UserError(f"{uri} is damaged or not a MATLAB file: download it again") from error
