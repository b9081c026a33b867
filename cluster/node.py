"""`ray start` that stays on the loopback; takes its arguments.

Ray replaces 127.0.0.1 by the machine's own address and then listens on every interface, where anybody could run
anything. Where RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says that this is no machine for clusters it does not, but then
it refuses workers, which are let in here.
"""

from __future__ import annotations

import sys

from ray._private import ray_constants, services
from ray.scripts.scripts import main

if __name__ == "__main__":
    services.get_node_ip_address = lambda address=None: "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    sys.argv.insert(1, "start")
    main()
