"""Measure instances: place, size, shape, neighbours. One row an instance."""

from tomocensus.measure.columns import COLUMNS
from tomocensus.measure.extent import extent
from tomocensus.measure.table import measure

__all__ = ["COLUMNS", "extent", "measure"]
