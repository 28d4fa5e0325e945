"""Pictures of tomograms and one self-contained page for a data set."""

from tomocensus.report.html import build_report
from tomocensus.report.pictures import picture
from tomocensus.report.thumbnails import inner_point, split_pictures, thumbnail

__all__ = ["build_report", "inner_point", "picture", "split_pictures", "thumbnail"]
