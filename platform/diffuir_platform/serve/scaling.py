"""How many processes with models there should be.

Ray Serve's controller calls this. It counts work, which `Model.record_autoscaling_stats` tells in units of what
may stand before one process, and not requests, of which one may be a hundred times as large as another.
"""

from __future__ import annotations

import math
from typing import Any


def by_work(context: Any) -> tuple[float, dict[str, Any]]:
    """A process for each unit of work there is; Serve itself applies the bounds and the delays."""
    loads = (context.aggregated_metrics or {}).get("load", {})
    total = sum(loads.values())
    if not loads:
        # None has told yet: keep what there is.
        return max(context.current_num_replicas, 1 if context.total_num_requests else 0), {}
    # A request that is queued before all of them is on none's account.
    waiting = context.total_queued_requests or 0.0
    mean = total / max(len(loads), 1)
    return math.ceil(total + (waiting * mean if waiting else 0.0)), {}
