"""How many processes with models there should be.

Ray Serve's controller calls this. It counts work, which `Model.record_autoscaling_stats` tells in units of what
may stand before one process, and not requests, of which one may be a hundred times as large as another; and how
much of the time the processes are busy, so that none is ended that the others would miss.
"""

from __future__ import annotations

import math
from typing import Any

from ray.serve.context import _get_global_client

FULL = 0.8
"""Share of the time that a process is busy at which it has enough to do."""


def by_work(context: Any) -> tuple[float, dict[str, Any]]:
    """A process for each unit of work there is; Serve itself applies bounds and delays, and starts the first."""
    told = context.aggregated_metrics or {}
    if not told.get("load"):
        return context.target_num_replicas, {}
    wanted = max(sum(told["load"].values()), sum(told["busy"].values()) / FULL)
    # More processes than requests would have nothing to do.
    return math.ceil(min(wanted, context.total_num_requests)), {}


def running_processes(application: str) -> dict[str, int]:
    """How many processes of each deployment run.

    What `serve.status()` reads too, which then pickles classes for 90 ms: a tenth of a gateway, each second.
    """
    details = _get_global_client().get_serve_details()
    return {
        name: sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        for name, deployment in details["applications"][application]["deployments"].items()
    }
