"""The private parts of Pillow that are used, all of them here, each with the reason and its test."""

from __future__ import annotations

from PIL import AvifImagePlugin, ImagePalette, TiffImagePlugin
from PIL import Image as Pillow


class StoredTiff(TiffImagePlugin.TiffImageFile):
    """A TIFF that Pillow reads as it is stored: not turned, with the nearest colours of a palette, of any size.

    Why: Pillow turns a TIFF upright itself, cuts the 16 bits of a palette's colours off, and makes no picture
    above a limit for the whole process. Public way: none. Test: tests/core/test_pillow_private.py.
    """

    def _setup(self) -> None:
        """Read the layout; the colours of a palette have 16 bits, or 8 where a writer has mistaken these."""
        super()._setup()
        self._size = self._tile_size
        if self.mode in ("P", "PA"):
            colours = self.tag_v2[TiffImagePlugin.COLORMAP]
            levels = 257 if max(colours) > 255 else 1
            palette = bytes((colour + levels // 2) // levels for colour in colours)
            self.palette = ImagePalette.raw("RGB;L", palette)

    def load_end(self) -> None:
        """Leave the picture as it is, where Pillow would turn it upright."""

    def load_prepare(self) -> None:
        """Make the picture, which Pillow would do only below its own limit."""
        if self._im is None:
            self.im = Pillow.new(self.mode, self._tile_size).im
        super().load_prepare()


def avif_exif(picture: AvifImagePlugin.AvifImageFile) -> bytes:
    """The EXIF block of an AVIF as it is in the file; empty if it has none.

    Why: Pillow writes the block anew where its orientation is not the header's, which garbles its texts. Public
    way: none. Test: tests/core/test_pillow_private.py.
    """
    return picture._decoder.get_info()[4] or b""
