"""Photos in MATLAB files, as the under-display challenge hands out TOLED and POLED.

A file such as poled_test_display.mat holds one array, uint8 (N, H, W, 3) RGB, named test_display; its clean twin
poled_test_gt.mat holds test_gt (val_display and val_gt for the other split). One photo of it is written as
`FILE.mat#ARRAY/NUMBER`. Formats up to 7 are read, not 7.3, which is HDF5.
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
"""The two sides of a file's pairs: half a gigabyte for the published ones."""

_ELEMENT = re.compile(r"(?P<file>.+\.mat)#(?P<array>\w+)/(?P<number>\d+)")
_lock = threading.Lock()
_shapes: LRUCache[tuple[str, str], tuple[int, int, int]] = LRUCache(64)
_arrays: LRUCache[tuple[str, str], Pixels] = LRUCache(ARRAYS_KEPT)


def is_element(uri: str) -> bool:
    """Whether `uri` names one photo of a MATLAB file."""
    return _ELEMENT.fullmatch(uri) is not None


def file_of(uri: str) -> str:
    """The file that holds what `uri` names: `uri` itself, but for a photo of a MATLAB file."""
    found = _ELEMENT.fullmatch(uri)
    return uri if found is None else found["file"]


def elements(uri: str, array: str) -> list[str]:
    """What to add to the name of the file at `uri` for each of its photos, in order; reads its header only."""
    return [f"#{array}/{number}" for number in range(_shape(uri, array)[0])]


def size(uri: str) -> tuple[int, int]:
    """(width, height) of one photo; reads the file's header only."""
    file, array, _ = _parts(uri)
    _, height, width = _shape(file, array)
    return width, height


def read_png(uri: str) -> bytes:
    """One photo as a PNG file, which loses nothing: what is read of an index is always the bytes of an image."""
    file, array, number = _parts(uri)
    photos = _array(file, array)
    if number >= len(photos):
        raise storage.NotThere(f"{file} holds {len(photos)} photos, no number {number}: make the index again")
    out = io.BytesIO()
    Image.fromarray(photos[number]).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _parts(uri: str) -> tuple[str, str, int]:
    found = _ELEMENT.fullmatch(uri)
    if found is None:
        raise UserError(f"{uri} names no photo of a MATLAB file: write FILE.mat#ARRAY/NUMBER")
    return found["file"], found["array"], int(found["number"])


def _shape(uri: str, array: str) -> tuple[int, int, int]:
    """(N, H, W) of the array; raises UserError where the file has none of that name and kind."""
    from scipy.io import whosmat

    with _lock:
        if (uri, array) not in _shapes:
            arrays = {name: (shape, kind) for name, shape, kind in _scipy(whosmat, uri)}
            if array not in arrays:
                there = ", ".join(sorted(arrays)) or "nothing"
                raise UserError(f"{uri} holds {there}, no array {array}: rename it in the file")
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
            # MATLAB keeps the first axis together; a photo is wanted at once.
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
            raise UserError(f"{uri} is no MATLAB file or is damaged: fetch it again") from error
