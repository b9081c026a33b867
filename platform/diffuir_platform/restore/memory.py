"""The memory of this machine, or of the container that this process is in."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

RAYS_THRESHOLD = "RAY_memory_usage_threshold"
"""Variable with the share of the memory in use at which Ray ends processes of its own choice, 0.95 by default."""
EARLIER = 0.01
"""Share of the memory that is left then, after ours have been ended."""
CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Folder, files of the limit and the usage, and name of the cache that is given up, for versions 2 and 1."""


def takes_the_last_memory(pid: int) -> bool:
    """Whether the memory is nearly used up and the process `pid` uses the most of it."""
    threshold = float(os.environ.get(RAYS_THRESHOLD) or 0.95)
    if _free_share() > 1 - threshold + EARLIER:
        return False
    found = [(one.info["memory_info"], one.pid) for one in psutil.process_iter(["memory_info"])]
    return max((usage.rss, one) for usage, one in found if usage is not None)[1] == pid


def _free_share() -> float:
    """The share of the memory that is free, of the machine's or the container's, whichever is less."""
    machine = psutil.virtual_memory()
    shares = [machine.available / machine.total]
    for folder, limit, used, cache in CONTROL_GROUPS:
        try:
            bytes_of_limit = int((Path(folder) / limit).read_text())  # ValueError: "max"
            statistics = dict(
                line.split() for line in (Path(folder) / "memory.stat").read_text().splitlines()
            )
            bytes_used = int((Path(folder) / used).read_text()) - int(statistics[cache])
        except (OSError, ValueError, KeyError):
            continue
        shares.append(1 - bytes_used / bytes_of_limit)
    return min(shares)
