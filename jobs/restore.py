"""Restore a collection on the Ray cluster that runs this; the same again goes on where it was stopped.

    ray job submit --address http://HEAD:8265 --working-dir . --runtime-env jobs/runtime-env.yaml \
        -- python jobs/restore.py jobs/restore.yaml source=s3://bucket/photos target=s3://bucket/restored

`diffuir restore s3://bucket/photos s3://bucket/restored --address http://HEAD:8265` submits it and follows it.
"""

import sys

from diffuir_platform.cli import plainly
from diffuir_platform.restore.commands import run_job

if __name__ == "__main__":
    sys.exit(plainly(lambda: run_job(sys.argv[1:])))
