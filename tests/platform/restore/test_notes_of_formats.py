"""What a photo carries and the format of its result can't hold is in the notes of its row."""

from __future__ import annotations

import hashlib
from pathlib import Path

from PIL import Image

from diffuir_platform.restore.inputs import Item
from diffuir_platform.restore.stages import read, write
from support.metadata_files import UTF8, camera_block, exif_segment, jpeg, xmp_packet, xmp_segment


def test_notes_name_what_was_lost_in_reading_and_in_writing(tmp_path: Path) -> None:
    film = b"\0\0\0\x18ftypmp42" + bytes(200)
    source = tmp_path / "photo.jpg"
    source.write_bytes(jpeg(exif_segment(camera_block(gps=True)), xmp_segment(xmp_packet(""))) + film)
    out = tmp_path / "out"
    out.mkdir()
    items = [
        Item(key=name, source=str(source), target=name, format=format, size=source.stat().st_size)
        for name, format in (("a.jpg", None), ("b.bmp", "BMP"))
    ]
    photos = write(read(items, "without-gps", False, 10**6), str(out), 95)
    assert [photo.reason for photo in photos] == [None, None]
    same, other = photos
    assert same.notes == "its film (motion photo) is not kept"
    assert other.notes == "its film (motion photo) is not kept; BMP cannot hold its EXIF, XMP"
    data = (out / "a.jpg").read_bytes()
    assert same.sha256 == hashlib.sha256(data).hexdigest()
    assert UTF8.encode() in data
    assert 34853 not in Image.open(out / "a.jpg").getexif()
