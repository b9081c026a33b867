"""`ray start`, with the same arguments, for a node that listens on the loopback only.

Ray replaces 127.0.0.1 with the machine's own address and then listens on every interface, where anybody could run
code. With RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, which says that this machine is not for clusters, it does not, but
then it refuses workers; this program lets them in.
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
