"""Command lines of the benchmarks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and keeps the line breaks of the description."""


def benchmark_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows defaults, with the option `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=_Formatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the figures to as well")
    return parser


def write_figures(options: argparse.Namespace, figures: Any) -> None:
    """Write the figures to the file of `--json`, if one was given."""
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, default=str))
