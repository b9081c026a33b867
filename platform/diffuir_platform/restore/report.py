"""The report of a run: `report.json`, and `report.html`, which needs no other file."""

from __future__ import annotations

import base64
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from diffuir_core.errors import UserError
from diffuir_core.imaging import Pixels, decode

from .. import storage
from ..text import one_line
from .inputs import Inputs, Item
from .ledger import Ledger, LedgerRow
from .names import REPORT_FILE, from_text
from .record import Record
from .stages import read_input
from .summary import Summary

HTML_FILE = "report.html"
BINS = 60
"""Equal spans of the run for which the throughput is given."""
SLOWEST, FAILED, GALLERY = 10, 200, 8
"""Most photos that are listed as slowest, listed as failed, and shown before and after."""
SIDE = 360
"""Largest side of a picture of the gallery, pixels."""
TEMPLATE = Path(__file__).parent / "report.html.jinja"


def write_report(
    folder: str,
    inputs: Inputs,
    ledger: Ledger,
    summary: Summary,
    record: Record,
    began: int,
    statistics: str,
) -> None:
    """Write both files into `folder`.

    began: start of the run, as `ledger.now` returned it. statistics: those of Ray Data; empty without it.
    """
    figures = report(inputs, ledger, summary, record, began, statistics)
    storage.write_bytes(storage.join(folder, REPORT_FILE), json.dumps(figures, indent=1).encode())
    storage.write_bytes(storage.join(folder, HTML_FILE), page(figures, gallery(inputs, ledger)).encode())


def report(
    inputs: Inputs, ledger: Ledger, summary: Summary, record: Record, began: int, statistics: str = ""
) -> dict[str, Any]:
    """Return the figures of this run, and of the whole output with the results of earlier runs."""
    bins = ledger.throughput(began, BINS)
    return {
        "input": inputs.source,
        "output": inputs.target,
        "began": datetime.fromtimestamp(began / 1000, UTC).isoformat(timespec="seconds"),
        "settings": record.settings,
        "fingerprint": record.fingerprint,
        "run": {
            "seconds": round(summary.seconds, 3),
            "done": summary.done,
            "failed": summary.failures - summary.failed_before,
            "skipped": summary.skipped + summary.failed_before,
            "ignored": summary.ignored,
            "images_per_second": round(summary.done / summary.seconds, 4) if summary.seconds else 0,
            "megapixels_per_second": round(summary.pixels / 1e6 / summary.seconds, 4)
            if summary.seconds
            else 0,
            "precisions": sorted(summary.precisions),
            "throughput": [{"second": round(second, 3), "photos": photos} for second, photos in bins],
        },
        "output_holds": {
            "done": ledger.count("done"),
            "failed": ledger.count("failed"),
            **{name: round(value, 3) for name, value in ledger.totals().items()},
        },
        "ray_data": statistics,
        "slowest": [_row_figures(row) for row in ledger.slowest(SLOWEST)],
        "failed": [_row_figures(row) for row in ledger.failures(FAILED)],
    }


def gallery(inputs: Inputs, ledger: Ledger) -> list[dict[str, str]]:
    """Return a sample of photos before and after, as data: URIs, without those that can't be read any more."""
    pictures = []
    for row in ledger.sample(GALLERY):
        source = Item(row.key, from_text(row.source), "", None, row.source_bytes, None, row.offset)
        try:
            before = decode(read_input(source), truncated=True).pixels
            after = decode(storage.read_bytes(storage.join(inputs.target, from_text(row.target)))).pixels
        except UserError:
            continue
        pictures.append(
            {"key": one_line(from_text(row.key)), "before": _data_uri(before), "after": _data_uri(after)}
        )
    return pictures


def page(figures: dict[str, Any], pictures: list[dict[str, str]]) -> str:
    """Return the report as HTML, with every name escaped."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    peak = max((span["photos"] for span in figures["run"]["throughput"]), default=0)
    return template.render(figures | {"pictures": pictures, "peak": peak, "bins": BINS, "listed": FAILED})


def _row_figures(row: LedgerRow) -> dict[str, Any]:
    return {
        "key": one_line(from_text(row.key)),
        "reason": row.reason,
        "width": row.width,
        "height": row.height,
        "attempt": row.attempt,
        "seconds": {
            stage: round(value, 4)
            for stage, value in (
                ("read", row.seconds_read),
                ("restore", row.seconds_restore),
                ("write", row.seconds_write),
            )
        },
    }


def _data_uri(pixels: Pixels) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
