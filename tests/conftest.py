"""Threads of the tests' own processes, of which several share the cores, and what comes first."""

import os
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# What asks for more threads does not spin while it waits for them.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# Longest first: the short ones of `unit` fill what is left.
_FOLDERS = ("slurm", "workflow", "unit")


def pytest_collection_modifyitems(items):
    """Sort by folder; within one, tests stay in their order."""
    here = Path(__file__).parent
    items.sort(key=lambda item: _FOLDERS.index(item.path.relative_to(here).parts[0]))
