"""Real small disks, which only root can mount; elsewhere a test that needs one is skipped, with the reason."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes, in memory, at the new folder `folder`."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


def enlarge(folder: Path, size: int) -> None:
    """Give a `small_disk` another size, bytes."""
    _run("mount", "-o", f"remount,size={size}", str(folder))


@contextmanager
def exfat_disk(folder: Path, size: int = 8 * 2**20) -> Iterator[Path]:
    """A disk of `size` bytes with exFAT, by the kernel or by FUSE, at the new folder `folder`."""
    image = folder.with_suffix(".img")
    image.write_bytes(b"")
    os.truncate(image, size)
    folder.mkdir()
    _run("mkfs.exfat", str(image))
    device = _run("losetup", "--find", "--show", str(image)).strip()
    try:
        fuse = shutil.which("mount.exfat-fuse")
        _run(*([fuse] if fuse else ["mount", "-t", "exfat"]), device, str(folder))
        try:
            yield folder
        finally:
            _run("umount", "--lazy", str(folder))
    finally:
        _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    """Run a command; skips the test where it fails or does not exist."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no such disk on this machine: {error} {getattr(error, 'stderr', '') or ''}".strip())
