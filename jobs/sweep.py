"""Sweep on the Ray cluster that runs this: takes the arguments of `diffuir sweep`, and exits with its codes.

    ray job submit --address http://HEAD:8265 --working-dir . --runtime-env jobs/runtime-env.yaml \
        -- python jobs/sweep.py jobs/sweep-delta.yaml train.storage=s3://bucket/runs \
        train.data.index=[s3://bucket/pairs.parquet] train.validation.index=[s3://bucket/pairs.parquet]

`diffuir sweep --address http://HEAD:8265` submits the same and follows it.
"""

import sys

from diffuir_platform.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "sweep")
    main()
