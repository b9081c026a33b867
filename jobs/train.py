"""Train on the Ray cluster that runs this: takes the arguments of `diffuir train`, and exits with its codes.

    ray job submit --address http://HEAD:8265 --working-dir . --runtime-env jobs/runtime-env.yaml \
        -- python jobs/train.py jobs/train-quick.yaml storage=s3://bucket/runs \
        data.clean=[] data.index=[s3://bucket/photos.parquet]

`diffuir index FOLDER s3://bucket/photos.parquet --layout clean` makes the index; one of all tasks does, too.

`diffuir train --address http://HEAD:8265` submits the same and follows it.
"""

import sys

from diffuir_platform.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
