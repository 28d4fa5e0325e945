"""The report: slices of every tomogram, tables, charts and provenance in one HTML file."""

from tomocensus.report.html import build_report
from tomocensus.report.pictures import picture

__all__ = ["build_report", "picture"]
