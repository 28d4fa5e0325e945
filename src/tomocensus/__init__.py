"""TomoCensus: from cryo-ET tomograms to a table of separated, named and measured objects."""

__version__ = "0.1.0"
