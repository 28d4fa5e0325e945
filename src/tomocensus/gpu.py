"""A GPU of its own for each job of a workstation with several: Snakemake counts GPUs only."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from pathlib import Path

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_held = []


def visible_gpus(devices: str | Path = "/dev") -> list[str]:
    """Return the names of the GPUs that this process may use.

    Parameters
    ----------
    devices : path-like
        Where the driver keeps its device files.
    """
    given = os.environ.get(_VISIBLE)
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    numbers = [re.fullmatch(r"nvidia(\d+)", path.name) for path in Path(devices).glob("nvidia*")]
    return sorted((found[1] for found in numbers if found), key=int)


def claim_gpu(devices: str | Path = "/dev", locks: str | Path | None = None) -> str | None:
    """Take one of several visible GPUs for this process alone, and hide the others from it.

    What a queueing system gave (one GPU, or none) is used as it is. Where all are taken this waits
    until one is free: a second job on a GPU would run out of its memory. Call it before PyTorch is
    imported. The claim ends with the process, however that ends.

    Parameters
    ----------
    devices : path-like
        See `visible_gpus`.
    locks : path-like, optional
        Folder for lock files that all jobs of this user on this machine share.

    Returns
    -------
    str or None
        The GPU's name; None where there was nothing to choose.
    """
    names = visible_gpus(devices)
    if len(names) < 2:
        return None
    folder = Path(locks or Path(tempfile.gettempdir()) / f"tomocensus-gpu-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        for name in names:
            if _lock(folder / f"{name.replace('/', '_')}.lock"):
                os.environ[_VISIBLE] = name
                return name
        time.sleep(0.5)


def _lock(path: Path) -> bool:
    """Take a lock and keep it until the process ends; tell whether it was free."""
    file = open(path, "w")  # noqa: SIM115 (the lock lives as long as the file is open)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    _held.append(file)
    return True
