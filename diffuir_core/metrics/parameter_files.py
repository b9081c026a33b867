"""Files of arrays that metrics read: NumPy's npz and MATLAB's mat."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ..errors import UserError
from ..files import replacing


def read_arrays(path: Path, meant: str) -> dict[str, Any]:
    """Return the arrays of an npz or mat file by name.

    meant: what the file should hold and where that is published, for the error. Raises `UserError` where the file
    is missing or no such file.
    """
    try:
        with open(path, "rb") as file:
            if path.suffix != ".npz":
                return dict(loadmat(file))
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise UserError(f"there is no {path}: it should hold {meant}") from None
    except (OSError, ValueError, zipfile.BadZipFile, MatReadError, NotImplementedError) as error:
        raise UserError(f"{path} can't be read as an npz or mat file: it should hold {meant}") from error


def write_arrays(path: Path, **arrays: Any) -> None:
    """Write arrays as npz under a name that ends in .npz, by an atomic rename; raises `UserError` for another
    name."""
    if path.suffix != ".npz":
        raise UserError(f"{path} does not end in .npz: name a file that does")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
