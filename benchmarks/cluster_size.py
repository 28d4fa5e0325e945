"""Time and memory of clustering a whole tomogram, and a volume that does not fit in memory.

Usage: python benchmarks/cluster_size.py [--shape 300 928 960] [--objects 1300]
       [--soft | --outlines] [--specks 0.03] [--threads 1 2] [--repeats 3]
       python benchmarks/cluster_size.py --scratch FOLDER --shape 1000 2000 2000 --objects 3000

Of each number of threads the best wall time of the repeats is told, and its efficiency: that of the
first number over it, for each thread. Other work on the machine counts against the larger numbers:
what it took of the processors meanwhile is told too.

With --scratch everything of the volume's size lies in files. RssAnon is the process's own memory;
the rest of VmRSS is file cache, which the system takes back when it needs it.
"""

import argparse
import os
import threading
import time
from pathlib import Path

import numpy as np
from cluster_shapes import _tube_field
from scipy import ndimage

from tomocensus.cluster import ClusterParameters, cluster


def paint_objects(volume, count, seed=0):
    """Paint balls, shells, capsules and touching pairs (values 0 or 100) at places of a grid."""
    rng = np.random.default_rng(seed)
    pitch = int((volume.size / count) ** (1 / 3))
    cells = [range(0, n - pitch // 2, pitch) for n in volume.shape]
    places = np.stack(np.meshgrid(*cells, indexing="ij"), axis=-1).reshape(-1, 3)
    # In the order of the file, for volumes on disk.
    for place in places[np.sort(rng.permutation(len(places))[:count])]:
        radius = rng.uniform(0.12, 0.2) * pitch
        box = tuple(slice(a, min(a + pitch, n)) for a, n in zip(place, volume.shape, strict=True))
        shape = tuple(side.stop - side.start for side in box)
        way = rng.standard_normal(3)
        way *= radius / np.linalg.norm(way)
        middle = np.array(shape) / 2
        kind = rng.integers(4)
        path = np.stack([middle - way, middle + way]) if kind > 1 else middle[None]
        field = np.full(shape, 1e9)
        if kind == 2:
            for point in path:
                _tube_field(field, np.zeros(3), np.ones(3), point[None], np.array([radius * 1.05]))
        else:
            _tube_field(field, np.zeros(3), np.ones(3), path, np.full(len(path), radius))
        inside = field <= 0
        if kind == 1:
            inside &= field > -2
        volume[box][inside] = 100


class Watch(threading.Thread):
    """Follows the process's memory: resident, and the anonymous part of it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.forget()
        self.start()

    def forget(self):
        """Begin anew."""
        self.peak = {"VmRSS": 0, "RssAnon": 0}

    def run(self):
        while True:
            for row in Path("/proc/self/status").read_text().splitlines():
                name, _, rest = row.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(rest.split()[0]))
            time.sleep(0.05)


def clocks():
    """Return wall time, this process's user and system time, and that of the whole machine, s."""
    own = os.times()
    spent = [int(n) for n in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    busy = (sum(spent) - spent[3] - spent[4]) / os.sysconf("SC_CLK_TCK")
    return np.array([time.perf_counter(), own.user, own.system, busy])


def map_of(arguments):
    """Return the mask or map, and the map of outlines or None."""
    shape = tuple(arguments.shape)
    if arguments.scratch:
        volume = np.memmap(Path(arguments.scratch) / "map.raw", np.int8, "w+", shape=shape)
    else:
        volume = np.zeros(shape, np.int8)
    paint_objects(volume, arguments.objects)
    outlines = np.zeros_like(volume) if arguments.outlines else None
    for z in range(0, shape[0], 30) if arguments.soft or arguments.outlines else ():
        part = volume[z : z + 30].astype(np.float32)
        volume[z : z + 30] = np.rint(ndimage.gaussian_filter(part, 1.0))
        if arguments.outlines:
            edges = ndimage.morphological_gradient(part, (1, 3, 3))
            outlines[z : z + 30] = np.rint(ndimage.gaussian_filter(edges, (0, 0.7, 0.7)))
    return volume, outlines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[300, 928, 960])
    parser.add_argument("--objects", type=int, default=1300)
    parser.add_argument("--soft", action="store_true", help="a map with soft edges, not a mask")
    parser.add_argument("--outlines", action="store_true", help="the same, and a map of outlines")
    parser.add_argument("--specks", type=float, default=0.0, help="part of voxels that is noise")
    parser.add_argument("--scratch", help="folder on a disk with 9 bytes a voxel to spare")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    volume, outlines = map_of(arguments)
    rng = np.random.default_rng(1)
    for plane in volume if arguments.specks else ():
        plane[rng.random(plane.shape) < arguments.specks] = 100
    corner = tuple(slice(0, n // 3) for n in volume.shape)
    # Compiled functions are loaded.
    cluster(volume[corner], 10.0, boundary=None if outlines is None else outlines[corner])
    watch = Watch()
    first = None
    for threads in arguments.threads:
        watch.forget()
        runs = []
        for _ in range(arguments.repeats):
            before = clocks()
            result = cluster(
                volume,
                10.0,
                ClusterParameters(),
                boundary=outlines,
                threads=threads,
                scratch=arguments.scratch,
            )
            runs.append(clocks() - before)
            time.sleep(0.1)
            found = f"{result.facts['components']} components, {len(result.table)} instances"
            del result
            for left in Path(arguments.scratch or "/nowhere").glob("tmp*.raw"):
                left.unlink()
        wall, user, system, busy = min(runs, key=lambda run: run[0])
        first = first or wall * threads
        peak = ", ".join(f"{name} {size / 2**20:.2f} GiB" for name, size in watch.peak.items())
        print(
            f"{volume.shape}, {found}, {threads} threads: {wall:.1f} s, "
            f"CPU {user:.1f} s and {system:.1f} s of the system, "
            f"{(user + system) / volume.size * 1e6:.3f} µs a voxel; "
            f"efficiency {first / (threads * wall):.2f} "
            f"({max(0.0, busy - user - system) / wall:.1f} processors taken by others); {peak}"
        )
    if arguments.scratch:
        (Path(arguments.scratch) / "map.raw").unlink()


if __name__ == "__main__":
    main()
