"""Ten thousand damaged files of all formats are decoded or refused: no crash, hang, leak or other exception.

A child process, this file run as a script, does it, so that a crash there is a failed test here that names the
file. To reproduce one: `mutated(1234)` returns its bytes, `attempt(1234)` decodes and encodes it.
"""

from __future__ import annotations

import faulthandler
import functools
import gc
import json
import os
import resource
import struct
import subprocess
import sys
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms
from test_imaging import camera_exif, noise, png, png16, saved, smooth
from test_tiff import tiff

from diffuir_core.imaging import FORMATS, ImageError, Limits, Pixels, decode, encode, inspect, lost_in
from support.metadata_files import (
    camera_block,
    exif_segment,
    iptc,
    jpeg,
    multi_picture,
    photoshop_block,
    xmp_packet,
    xmp_segment,
)
from support.photo_files import LOSSLESS, avif, dng, heic, jxl

SEED = 1
FILES = int(os.environ.get("DIFFUIR_FUZZ_FILES", 10_000))
WARM_UP = min(2_000, FILES // 2)  # files after which caches and pools are full, so that growth is a leak
HANGS_AFTER = 60  # seconds for one file; the slowest takes a small part of one second
LIMITS = Limits(max_pixels=2**20)  # low, so that accepted files need little memory, and an escape shows
MIB = 2**20
ADDRESS_SPACE = 3 * 2**10 * MIB  # added to that at the start
PEAK = 384 * MIB  # resident, above the start; usually 15 MiB, but an ICC profile of 2 KB can take 290
GROWTH = 12 * MIB  # resident, since the warm-up; usually 1 to 2 MiB
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0xFFFFFF, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)


@functools.cache
def sources() -> dict[str, bytes]:
    """Small intact files by name; a name begins with the format."""
    pixels = smooth(40, 56) // 2 + noise(40, 56) // 8
    rgb, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    rgba = Image.fromarray(np.concatenate((pixels, pixels[..., :1]), -1))
    la, bilevel, cmyk, palette = rgba.convert("LA"), grey.convert("1"), rgb.convert("CMYK"), rgb.quantize(16)
    deep = np.random.default_rng(2).integers(0, 65536, (24, 32, 4), dtype=np.uint16)
    planes = np.ascontiguousarray(np.moveaxis(deep[..., :3], -1, 0))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    icc = icc[:24] + bytes(12) + icc[36:]  # without its date
    exif, long_exif = camera_exif(6), Image.Exif()
    long_exif.load(exif)
    long_exif[ExifTags.IFD.Exif] = {37500: bytes(range(256)) * 4, 33434: (1, 250), 36864: b"0230"}
    longitude = "<exif:GPSLongitude>8</exif:GPSLongitude>"
    packet = xmp_packet('exif:GPSLatitude="47,22N" tiff:Orientation="6"', longitude)
    rich = jpeg(
        exif_segment(camera_block(orientation=6, gps=True, thumbnail=True, adobe=True)),
        *(
            xmp_segment(packet),
            (0xED, b"Photoshop 3.0\0" + photoshop_block(0x0404, iptc())),
            (0xFE, b"a comment"),
        ),
        dpi=(300, 200),
    )
    chunks = (b"iCCP", b"p\0\0" + zlib.compress(icc)), (b"eXIf", exif[6:])
    plain = {
        "JPEG": (grey, rgb, cmyk),
        "PNG": (bilevel, grey, la, palette, rgb, rgba),
        "WEBP": (rgb, rgba),
        "TIFF": (grey, palette, rgb, Image.fromarray(deep[..., 0])),
        "BMP": (bilevel, grey, palette, rgb, rgba),
    }
    compressed = {"tiff_lzw": rgb, "tiff_adobe_deflate": rgba, "packbits": la, "jpeg": rgb, "group4": bilevel}
    # The TIFF first: writing a JPEG leaves options on the pictures that Pillow's multi-page TIFF writer rejects.
    several = {
        f"{name} of three": saved(rgb, format, save_all=True, append_images=[rgb.rotate(90), rgb.rotate(180)])
        for name, format in (("TIFF", "TIFF"), ("PNG", "PNG"), ("WEBP", "WEBP"), ("JPEG", "MPO"))
    }
    return several | {
        **{f"{format} {one.mode}": saved(one, format) for format in plain for one in plain[format]},
        **{f"TIFF {kind}": saved(one, "TIFF", compression=kind) for kind, one in compressed.items()},
        "JPEG progressive": saved(rgb, "JPEG", progressive=True, restart_marker_blocks=3, icc_profile=icc),
        "JPEG CMYK with ICC": saved(cmyk, "JPEG", icc_profile=cmyk_profile()),
        "JPEG with EXIF": saved(rgb, "JPEG", exif=exif, subsampling=0),
        "JPEG with long EXIF": saved(rgb, "JPEG", exif=long_exif.tobytes()),
        "PNG stored": saved(rgb, "PNG", compress_level=0, transparency=(90, 90, 90)),
        "PNG transparent palette": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "PNG interlaced": interlaced_png(pixels),
        "PNG 16-bit grey": png16(deep[..., :1], 0),
        "PNG 16-bit LA": png16(deep[..., :2], 4, *chunks),
        "PNG 16-bit RGB": png16(deep[..., :3], 2, *chunks),
        "PNG 16-bit RGBA": png16(deep, 6),
        "WEBP lossless": saved(rgb, "WEBP", lossless=True),
        "WEBP lossless alpha": saved(rgba, "WEBP", lossless=True, exif=exif, icc_profile=icc),
        "TIFF with EXIF": saved(rgb, "TIFF", exif=exif, icc_profile=icc),
        "TIFF CMYK with ICC": saved(cmyk, "TIFF", icc_profile=cmyk_profile()),
        "TIFF tiled": tiled_tiff(pixels),
        "TIFF 16-bit RGB": deep_tiff(deep[..., :3]),
        "TIFF 16-bit RGB deflate": encode(decode(png16(deep[..., :3], 2, *chunks)), "TIFF"),
        "BMP of version 4": encode(decode(saved(rgba, "PNG")), "BMP"),
        "BMP RLE": rle_bmp(pixels[..., 0] // 32),
        "TIFF 16-bit planes": tiff(planes, photometric="rgb", planarconfig="separate", compression="lzw"),
        "TIFF 16-bit tiles": tiff(deep, photometric="rgb", compression="zstd", predictor=True, tile=(16, 16)),
        "TIFF 12-bit": tiff(deep[..., 0] >> 4, bitspersample=12),
        "TIFF float": tiff(
            (deep / 65_535).astype(np.float32), photometric="rgb", compression="zlib", predictor=3
        ),
        "TIFF 16-bit CMYK": tiff(deep, photometric="separated", compression="packbits"),
        "HEIC": heic(pixels, exif=exif),
        "HEIC 10-bit": heic(deep[..., :3], **LOSSLESS),
        "HEIC RGBA": heic(np.dstack((pixels, pixels[..., :1]))),
        "AVIF": saved(rgb, "AVIF", quality=80, exif=exif),
        "AVIF 10-bit": avif(deep[..., :3], 10),
        "JXL": jxl(pixels),
        "JXL lossy": encode(decode(saved(rgba, "PNG", exif=exif)), "JXL"),
        "JXL 16-bit": encode(decode(png16(deep, 6)), "JXL"),
        "RAW": dng(deep[..., 0]),
        "JPEG with all metadata": rich,
        "JPEG of several": multi_picture((0, saved(rgb.resize((28, 20)), "JPEG")), packet=xmp_packet("")),
        **{
            f"{format} with all metadata": encode(decode(rich, exif="with-gps"), format)
            for format in ("PNG", "TIFF", "WEBP")
        },
    }


def cmyk_profile() -> bytes:
    """A printer's profile with only the parts that a conversion to sRGB reads (ICC.1:2001-04, 6.5.7)."""
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1\0\0\0\0\4\3\2\0" + matrix + ramp * 4 + bytes(range(0, 240, 5)) + ramp * 3
    head = struct.pack(">I4xI4s4s4s12x4s", 144 + len(lut), 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def interlaced_png(pixels: Pixels) -> bytes:
    """An interlaced PNG. Pillow reads it but does not write it, nor the tiles, byte order and runs below."""
    passes = (map(int, each) for each in ("0088", "0488", "4084", "0244", "2042", "0122", "1021"))
    rows = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx])
    data = bytearray(png(pixels.shape[1], pixels.shape[0], rows))
    data[28] = 1
    return with_right_crcs(data)


def tiled_tiff(pixels: Pixels) -> bytes:
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 64 - height), (0, 64 - width), (0, 0)))
    tiles = [zlib.compress(padded[y : y + 32, x : x + 32].tobytes()) for y in (0, 32) for x in (0, 32)]
    tags = Image.Exif()
    tags.update({256: width, 257: height, 258: (8, 8, 8), 259: 8, 262: 2, 277: 3, 322: 32, 323: 32})
    tags.update({324: (0,) * 4, 325: tuple(map(len, tiles))})
    start = len(tags.tobytes()) - 6
    tags[324] = tuple(start + sum(map(len, tiles[:i])) for i in range(4))
    return tags.tobytes()[6:] + b"".join(tiles)


def deep_tiff(samples: NDArray[np.uint16]) -> bytes:
    height, width, _ = samples.shape
    tags = Image.Exif()
    tags.endian = ">"
    tags.update(
        {256: width, 257: height, 258: (16,) * 3, 259: 1, 262: 2, 273: 0, 274: 6, 277: 3, 278: height}
    )
    tags[279] = samples.nbytes
    return tags.tobytes()[6:] + samples.astype(">u2").tobytes()


def rle_bmp(indices: Pixels) -> bytes:
    height, width = indices.shape
    body = b"".join(b"".join(b"\1" + bytes([i]) for i in row) + b"\0\0" for row in indices[::-1]) + b"\0\1"
    palette = b"".join(bytes((i, i, 255 - i, 0)) for i in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 2835, 2835, 256, 0)
    return struct.pack("<2sI4xI", b"BM", 1078 + len(body), 1078) + info + palette + body


def with_right_crcs(data: bytearray) -> bytes:
    """A PNG with the checksums of its chunks corrected."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def damage(data: bytearray, random: np.random.Generator) -> None:
    """Damage `data` in place in one of eight ways."""
    start = int(random.integers(len(data)))
    span = slice(start, start + int(2 ** random.uniform(0, 9)))
    order = {b"II": "little", b"MM": "big"}.get(bytes(data[:2]))
    # A TIFF's directory may follow its pixels; the size and layout are at the beginning of any header.
    header = min(int.from_bytes(data[4:8], order) if order else 0, len(data))
    entry = 10 + 12 * int(random.integers(16))  # from the start of a directory to one of its values
    header += entry if order and random.integers(2) else int(2 ** random.uniform(1, 8.6))
    match random.integers(8):
        case 0:  # bits
            for at in random.integers(0, len(data), random.integers(1, 9)):
                data[at] ^= 1 << int(random.integers(8))
        case 1:  # random bytes in the header
            width = int(random.integers(1, 5))
            data[header : header + width] = random.bytes(width)
        case 2:  # an extreme number in the header
            width = int(random.choice((1, 2, 4)))
            value = int(random.choice(EXTREMES)) % 256**width
            data[header : header + width] = value.to_bytes(width, "big" if random.integers(2) else "little")
        case 3:  # a span removed or repeated
            data[span] = data[span] * int(random.choice((0, 0, 0, 2, 3, 8)))
        case 4:  # two neighbouring spans swapped
            middle = (span.start + span.stop) // 2
            data[span] = data[middle : span.stop] + data[span.start : middle]
        case 5:  # the end cut off
            del data[start + 1 :]
        case 6:  # the head of one and the tail of another
            other = list(sources().values())[random.integers(len(sources()))]
            data[start + 1 :] = other[random.integers(len(other)) :]
        case 7:  # bytes appended
            data += random.bytes(int(2 ** random.uniform(0, 12)))


def source_of(number: int) -> str:
    return list(sources())[number % len(sources())]


def mutated(number: int) -> bytes:
    """The bytes of file `number`, the same in every process: a source damaged one to three times."""
    random = np.random.default_rng((SEED, number))
    data = bytearray(sources()[source_of(number)])
    for _ in range(random.integers(1, 4)):
        if data:
            damage(data, random)
    # With the old checksums, nearly all damage to a PNG would be detected at once.
    return with_right_crcs(data) if data[1:4] == b"PNG" and random.integers(4) else bytes(data)


def outcome(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The result of `function`, or None if it refuses the file properly."""
    try:
        return function(*arguments, **options)
    except ImageError as error:
        # Nothing within LIMITS needs more memory than there is.
        starved = isinstance(error.__cause__, MemoryError) or "memory" in str(error)
        if starved or len(str(error).splitlines()) != 1:
            raise AssertionError(f"not a refusal of the file: {error!r}") from error
        return None


def attempt(number: int) -> str:
    """Inspect, decode and encode file `number`; "decoded" or "refused"."""
    data, turn = mutated(number), number // len(sources())
    exif = "with-gps" if turn % 2 else "without-gps"
    header = outcome(inspect, data)
    image = outcome(decode, data, LIMITS, exif=exif, truncated=turn % 3 == 0)
    if image is None:
        return "refused"
    assert header is not None
    assert outcome(encode, image) is not None
    target = FORMATS[turn % len(FORMATS)]
    outcome(encode, image, target)
    lost_in(image, target)
    return "decoded"


def highest_memory() -> int:
    """Peak of this program's resident memory, bytes; getrusage would count that of its parent too."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def attempt_all(progress: Path) -> dict[str, Any]:
    """Attempt all files. `progress` holds the number of the current one, should this process crash."""
    faulthandler.enable()
    warnings.simplefilter("ignore", UserWarning)  # Pillow's, about damage that it skips
    process, outcomes, faults = psutil.Process(), Counter(), []
    sources()
    start, warm = process.memory_info(), 0
    resource.setrlimit(resource.RLIMIT_AS, (start.vms + ADDRESS_SPACE,) * 2)
    peak, peak_at = highest_memory(), -1
    current = np.memmap(progress, np.int64, "w+", shape=1)
    for number in range(FILES):
        current[0] = number
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        try:
            outcomes[f"{source_of(number)}: {attempt(number)}"] += 1
        except Exception:  # noqa: BLE001 - the test is for any exception
            faults.append(f"file {number}, {source_of(number)}: {traceback.format_exc()}")
        if highest_memory() > peak:
            peak, peak_at = highest_memory(), number
        if number == WARM_UP:
            gc.collect()
            warm = process.memory_info().rss
    faulthandler.cancel_dump_traceback_later()
    gc.collect()
    memory = {"growth": process.memory_info().rss - warm, "peak": peak - start.rss, "peak_at": peak_at}
    return {"faults": faults[:10], "outcomes": outcomes, "last": zlib.crc32(mutated(FILES - 1)), **memory}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.timeout(300 + FILES // 10)
def test_damaged_files_are_decoded_or_refused_and_nothing_else(tmp_path: Path) -> None:
    progress, stderr = tmp_path / "progress", tmp_path / "stderr"
    command = [sys.executable, __file__, str(progress)]
    # glibc returns freed large blocks to the system at once, so that memory that stays is a leak.
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "MALLOC_TRIM_THRESHOLD_": "131072",
    }
    with stderr.open("wb") as errors:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, env=environment, check=False)
    said = stderr.read_text(errors="replace")[-4000:]
    number = int(np.fromfile(progress, np.int64)[0]) if progress.exists() else None
    assert run.returncode == 0, f"ended with {run.returncode} in file {number} of seed {SEED}:\n{said}"
    summary = json.loads(run.stdout.splitlines()[-1])
    outcomes = summary.pop("outcomes")
    print(summary, *(f"{key} {outcomes[key]}" for key in sorted(outcomes)), sep="\n")
    assert not summary["faults"], "\n".join(summary["faults"])
    assert summary["last"] == zlib.crc32(mutated(FILES - 1)), "a number is not the same file everywhere"
    assert summary["peak"] < PEAK, f"file {summary['peak_at']} of seed {SEED} took more than the limits allow"
    assert summary["growth"] < GROWTH
    # Damage that always fails the first check, or never matters, would test nothing.
    assert {f"{name}: {end}" for name in sources() for end in ("decoded", "refused")} <= set(outcomes)
    for format in (*FORMATS, "RAW"):
        ends = {key: number for key, number in outcomes.items() if key.startswith(format)}
        decoded = sum(number for key, number in ends.items() if key.endswith("decoded")) / sum(ends.values())
        assert 0.05 < decoded < 0.85, (format, decoded)


if __name__ == "__main__":
    print(json.dumps(attempt_all(Path(sys.argv[1]))))
