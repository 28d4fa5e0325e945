"""CPU time and memory of clustering a whole tomogram, and a volume that does not fit in memory.

Usage: python benchmarks/cluster_size.py [--shape 300 928 960] [--objects 1300] [--soft]
       python benchmarks/cluster_size.py --scratch FOLDER --shape 1000 2000 2000 --objects 3000

With --scratch everything of the volume's size lies in files. RssAnon is the process's own memory;
the rest of VmRSS is file cache, which the system takes back when it needs it.
"""

import argparse
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
        self.peak = {"VmRSS": 0, "RssAnon": 0}
        self.start()

    def run(self):
        while True:
            for row in Path("/proc/self/status").read_text().splitlines():
                name, _, rest = row.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(rest.split()[0]))
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[300, 928, 960])
    parser.add_argument("--objects", type=int, default=1300)
    parser.add_argument("--soft", action="store_true", help="a map with soft edges, not a mask")
    parser.add_argument("--scratch", help="folder on a disk with 9 bytes a voxel to spare")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    cluster(np.zeros((8, 8, 8), np.int8), 10.0)
    warm = np.zeros((60, 60, 60), np.int8)
    paint_objects(warm, 8)
    cluster(warm, 10.0)
    if arguments.scratch:
        file = Path(arguments.scratch) / "map.raw"
        volume = np.memmap(file, np.int8, "w+", shape=shape)
    else:
        volume = np.zeros(shape, np.int8)
    paint_objects(volume, arguments.objects)
    if arguments.soft:
        for z in range(0, shape[0], 30):
            soft = ndimage.gaussian_filter(volume[z : z + 30].astype(np.float32), 1.0)
            volume[z : z + 30] = np.rint(soft)
    watch = Watch()
    cpu, wall = time.process_time(), time.perf_counter()
    result = cluster(
        volume,
        10.0,
        ClusterParameters(),
        threads=arguments.threads,
        scratch=arguments.scratch,
    )
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    time.sleep(0.1)
    print(f"{shape}, {result.facts['components']} components, {len(result.table)} instances")
    print(f"{cpu:.1f} CPU s, {wall:.1f} s, {cpu / volume.size * 1e6:.3f} CPU µs a voxel")
    print(", ".join(f"{name} {size / 2**20:.2f} GiB" for name, size in watch.peak.items()))
    if arguments.scratch:
        file.unlink()
        for left in Path(arguments.scratch).glob("tmp*.raw"):
            left.unlink()


if __name__ == "__main__":
    main()
