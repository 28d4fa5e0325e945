"""Content hashes of all inputs of a project, without reading each of them at every start.

A module of its own: what the workflow alone needs makes no stage's results stale when it changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tomocensus.atomic import write_text
from tomocensus.provenance import BLOCK, BLOCKS, content_hash, fingerprint, folder_fingerprint


class Fingerprints:
    """Content hashes of many files, remembered by the files' status.

    What was hashed once is read again only where size, times of change or inode differ. The time of
    the status' change (ctime) cannot be set back, so a file that was replaced by one with an older
    time stamp is read again, too. The device does not count: each machine numbers the file systems
    of a network itself, and the jobs of a cluster would all read everything again.

    Parameters
    ----------
    store : path-like
        JSON file that keeps the hashes from run to run; made anew where missing or broken.
    """

    def __init__(self, store: str | os.PathLike):
        self.store = Path(store)
        try:
            self.known = json.loads(self.store.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}

    def of(self, path: str | os.PathLike, sampled: bool = False) -> str:
        """Return the hash of one file or folder, ``"unreadable"`` where it cannot be read.

        What is wrong then is for the stage to say that reads it; others can go on.

        Parameters
        ----------
        path : path-like
            A file, or a folder (OME-Zarr; never remembered).
        sampled : bool
            For volumes that programs write whole: above 4 MiB hash blocks of the file, see
            `fingerprint`, and the time of its last change for what blocks cannot tell; of a folder
            names, sizes, small files and the times of the large ones. Otherwise every byte counts.
        """
        try:
            return self._of(path, sampled)
        except OSError:
            return "unreadable"

    def _of(self, path: str | os.PathLike, sampled: bool) -> str:
        status = _status(path)
        if status is None:
            if not os.path.isdir(path):
                return fingerprint(path)
            # Chunks that are not compressed keep their size whatever they hold.
            return folder_fingerprint(path, _last_change) if sampled else content_hash(path)
        key = f"{os.path.abspath(path)}:{int(sampled)}"
        if self.known.get(key, [None])[0] != status:
            self.known[key] = [status, self._hash(path, sampled)]
        return self.known[key][1]

    def look_at(self, files: Iterable[tuple[str, bool]], threads: int = 16) -> None:
        """Hash pairs of path and `sampled` side by side, and save what was new.

        A file system of thousands of tomograms answers slowly, but many at once.
        """
        files = [(path, sampled) for path, sampled in files if not os.path.isdir(path)]
        before = {key: value[0] for key, value in self.known.items()}
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda pair: self.of(*pair), files))
        if {key: value[0] for key, value in self.known.items()} != before:
            # A read-only project can still be looked at.
            with contextlib.suppress(OSError):
                write_text(self.store, json.dumps(self.known))

    @staticmethod
    def _hash(path: str | os.PathLike, sampled: bool) -> str:
        size = os.stat(path).st_size
        if size <= BLOCK * BLOCKS:
            return fingerprint(path)
        if sampled:
            return f"{fingerprint(path)}:{os.stat(path).st_mtime_ns}"
        return content_hash(path)


def _last_change(path: Path) -> bytes:
    """Return the time of a file's last change."""
    return str(path.stat().st_mtime_ns).encode()


def _status(path: str | os.PathLike) -> list[int] | None:
    """Return what changes with a file's content; None for a folder or nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
