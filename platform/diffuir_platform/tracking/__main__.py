"""`python -m diffuir_platform.tracking FOLDER`: brings to the tracker what runs have left on the disk."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffuir_core import UserError

from .courier import deliver


def main() -> int:
    """0: all is delivered; 2: it could not be, one sentence why."""
    parser = argparse.ArgumentParser(prog="python -m diffuir_platform.tracking", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="what the run has named: its spool, or its own folder in it"
    )
    parser.add_argument("--tracking-uri", help="the tracker's address, where it is not what it was")
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
