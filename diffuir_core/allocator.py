"""Memory that stays with the process between the layers of a network.

glibc gives a large block back to the system as soon as it is freed, and the next layer's block is then faulted in
and zeroed page by page: 30,000 page faults a pass of T on 256x256, a quarter of its time
(tests/core/test_allocator.py counts them). What PyTorch's caching allocator does on a GPU, these settings do on a
CPU.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_MAPPED_AT_MOST = 65_536
"""Blocks of their own, glibc's default."""

KEPT_BYTES = 2**31 - 1
"""Freed memory at the end of the heap up to which nothing is given back: as much as mallopt(3) can be told."""


_given_back = 0
"""Bytes of free blocks whose pages the system has, but which glibc goes on counting."""


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2, mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@lru_cache
def _glibc() -> Any | None:
    """The C library where it is a glibc that has these calls (2.33), else None."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - raises where it is not glibc
        library.mallinfo2.restype = _Mallinfo2
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):
        return None
    return library


def keep_freed_memory(keep: bool = True) -> bool:
    """Have this process keep up to 2 GiB of freed memory for its next use; False where the C library is not glibc.

    It holds for the whole process until it is called with False: then large blocks go back to the system as soon
    as they are freed. That is slower, and what an image needs that takes most of the memory: kept blocks of many
    sizes leave gaps between them, up to a third of the memory at 2560x1440.
    """
    global _given_back
    library = _glibc()
    if library is None:
        return False
    # One heap for all threads that start from now on: those that other threads get hold blocks up to 64 MiB only.
    settings = (
        (_M_MMAP_MAX, 0 if keep else _MAPPED_AT_MOST),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_ARENA_MAX, 1),
    )
    taken = [library.mallopt(*setting) for setting in settings]
    if not keep:
        library.malloc_trim(0)
        _given_back = _free_in_heap()
    return all(taken)


def kept_bytes() -> int:
    """Bytes that were freed and are kept: taken from the system's point of view, free from ours."""
    return max(0, _free_in_heap() - _given_back)


def _free_in_heap() -> int:
    library = _glibc()
    return 0 if library is None else int(library.mallinfo2().fordblks)
