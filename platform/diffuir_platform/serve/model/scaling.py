"""Autoscaling policy: how many model replicas there should be.

Ray Serve's controller calls it. It counts work, which `ModelReplica.record_autoscaling_stats` reports in units of
the target backlog of one replica, and not requests, of which one may be a hundred times as large as another; and
how much of the time the replicas are busy, so that none is ended that the others would miss.
"""

from __future__ import annotations

import math
from typing import Any

FULL = 0.8
"""Share of the time that a replica is busy at which it counts as fully used."""


def replicas_for_work(context: Any) -> tuple[float, dict[str, Any]]:
    """One replica for each unit of work; Serve itself applies bounds and delays, and starts the first replica.

    context: Serve's `AutoscalingContext`. Returns the number of replicas and no state.
    """
    reported = context.aggregated_metrics or {}
    if not reported.get("load"):
        return context.target_num_replicas, {}
    wanted = max(sum(reported["load"].values()), sum(reported["busy"].values()) / FULL)
    # More replicas than requests would have nothing to do.
    return math.ceil(min(wanted, context.total_num_requests)), {}
