"""Restore a collection on the Ray cluster that runs this: takes a config and settings, and exits with the codes of
`diffuir restore`.

    ray job submit --address http://HEAD:8265 --working-dir . --runtime-env jobs/runtime-env.yaml \
        -- python jobs/restore.py jobs/restore.yaml source=s3://bucket/photos target=s3://bucket/restored

The same again restores what is missing. `diffuir restore s3://bucket/photos s3://bucket/restored --address
http://HEAD:8265` submits it and follows it.
"""

import sys

from diffuir_platform.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["restore", "--config"]
    main()
