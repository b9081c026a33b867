"""`python -m diffuir_platform.tracking FOLDER`: delivers the records that runs have left on the disk to MLflow."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffuir_core import UserError

from .uploader import deliver


def main() -> int:
    """Run the command; return 0 where all is delivered, 2 where something could not be, with a sentence why."""
    parser = argparse.ArgumentParser(prog="python -m diffuir_platform.tracking", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="folder that the run has printed: the spool, or one run's folder in it"
    )
    parser.add_argument("--tracking-uri", help="address of the tracker, where it has changed since the run")
    options = parser.parse_args()
    try:
        count = deliver(options.folder, options.tracking_uri)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"delivered {count:,} records of {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
