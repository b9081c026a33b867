"""A store as Arrow's file system."""

from __future__ import annotations

import pyarrow.fs

from .keys import remove_below


class ExactNames(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """fsspec for Arrow, which deletes files by their exact names: `rm` takes [ * ? in a name for wildcards."""

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        self.fs.rm_file(path)

    def delete_dir(self, path: str) -> None:
        """Delete all that is below a folder."""
        remove_below(self.fs, path)
