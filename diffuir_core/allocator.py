"""Settings of glibc's allocator that keep freed memory in the process, as PyTorch's allocator does on a GPU.

By default glibc returns a large block to the system as soon as it is freed, and the next layer's block is then
faulted in and zeroed page by page: 30,000 page faults a pass of T on 256x256, a quarter of its time
(tests/core/test_allocator.py counts them).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8

_DEFAULT_MMAP_MAX = 65_536
"""glibc's default for the number of blocks that are mapped on their own."""

KEPT_BYTES = 2**31 - 1
"""Freed bytes at the end of the heap up to which nothing is returned to the system: the maximum of mallopt(3)."""

_returned_bytes = 0
"""Bytes of free blocks whose pages were returned to the system, but which glibc still counts."""


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@lru_cache
def _glibc() -> Any | None:
    """The C library if it is glibc 2.33 or newer, which has these calls, else None."""
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - raises where it is not glibc
        library.mallinfo2.restype = _Mallinfo2
        library.malloc_trim.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError, TypeError):
        return None
    return library


def keep_freed_memory(keep: bool = True) -> bool:
    """Keep up to 2 GiB of freed memory in this process for its next use.

    Returns False if the C library is not glibc. Applies to the whole process until a call with `keep` False,
    which returns large blocks to the system as soon as they are freed. That is slower, but an image that needs
    most of the memory needs it: kept blocks of many sizes leave gaps between them, up to a third of the memory
    at 2560x1440.
    """
    global _returned_bytes
    library = _glibc()
    if library is None:
        return False
    # One heap for all threads that start from now on: a heap of their own would hold blocks up to 64 MiB only.
    settings = (
        (_M_MMAP_MAX, 0 if keep else _DEFAULT_MMAP_MAX),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
        (_M_ARENA_MAX, 1),
    )
    accepted = [library.mallopt(*setting) for setting in settings]
    if not keep:
        library.malloc_trim(0)
        _returned_bytes = _free_in_heap()
    return all(accepted)


def kept_bytes() -> int:
    """Freed bytes that the process keeps: in use to the system, free to us."""
    return max(0, _free_in_heap() - _returned_bytes)


def _free_in_heap() -> int:
    library = _glibc()
    return 0 if library is None else int(library.mallinfo2().fordblks)
