"""Reports: what runs came to, as one HTML page that needs nothing else.

From run directories (`run_data`) by way of curves, games and groups of comparable runs to a page (`page`), which a
template lays out (`html`), or to one picture (`picture`). Only `run_data` and `files` touch the disk.
"""

from .files import ReportUnwritable, write_report
from .html import render
from .page import Page, build_page
from .picture import draw_curves
from .run_data import RunData, check_each_once, read_run

__all__ = [
    "Page",
    "ReportUnwritable",
    "RunData",
    "build_page",
    "check_each_once",
    "draw_curves",
    "read_run",
    "render",
    "write_report",
]
