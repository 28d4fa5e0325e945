"""Threads of the tests' own processes, of which several share the cores."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
# What asks for more threads does not spin while it waits for them.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
