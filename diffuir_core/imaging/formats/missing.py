"""The libraries of the extra `formats`, which are imported only for a photo that needs one."""

from __future__ import annotations

import importlib
from typing import Any, Self

from ..image import UnknownFormatError


class MissingExtraError(UnknownFormatError):
    """A photo in a format whose library is not installed; `format` names it."""

    def __init__(self, message: str, format: str) -> None:
        super().__init__(message)
        self.format = format

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        return type(self), (str(self), self.format)


def extra(module: str, format: str, purpose: str = "read") -> Any:
    """Import a library of the extra; raises MissingExtraError, which names the photo's `format`, without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        article = "an" if format[0] in "AR" and format != "RAW" else "a"
        what = f"it is {article} {format} photo" if purpose == "read" else f"the result would be {format}"
        raise MissingExtraError(f"{what}: install diffuir[formats] to {purpose} it", format) from error
