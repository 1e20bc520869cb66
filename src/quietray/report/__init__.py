"""Report of a run as one HTML file that works offline: what was done, and how reliable the result is."""

from quietray.report.data import Cut, Histogram, ReportData
from quietray.report.of_batch import write_batch
from quietray.report.of_comparison import write_comparison
from quietray.report.of_run import report_of
from quietray.report.page import write_report
from quietray.report.preview import Previewed

__all__ = [
    "Cut",
    "Histogram",
    "Previewed",
    "ReportData",
    "report_of",
    "write_batch",
    "write_comparison",
    "write_report",
]
