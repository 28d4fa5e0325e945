"""Time and memory of describing 1,000 instances of one tomogram, from file to file.

``python benchmarks/embed_size.py --shape 300 928 960 --folder FOLDER``

Ellipsoids of 60 to 600 Å half-axes on a lattice of 10 x 10 x 10 places, in noise.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from cluster_size import Watch
from segment_size import write_noise

from tomocensus.classify import embed
from tomocensus.io import open_mrc_writer, read_volume
from tomocensus.models import load_model

PLACES = 10


def write_labels(path: Path, shape: tuple[int, int, int], voxel_size: float) -> None:
    """Write a labelmap of 1,000 ellipsoids."""
    rng = np.random.default_rng(0)
    cell = np.array(shape) // PLACES
    labels = np.zeros(shape, np.int32)
    for number, place in enumerate(np.ndindex(PLACES, PLACES, PLACES), start=1):
        half = np.exp(rng.uniform(np.log(60), np.log(600), 3)) / voxel_size
        half = np.clip(half, 2, cell / 2 - 1)
        box = tuple(slice(a * n, (a + 1) * n) for a, n in zip(place, cell, strict=True))
        z, y, x = np.ogrid[tuple(slice(0, n) for n in cell)]
        far = sum(
            ((axis - n / 2) / h) ** 2 for axis, n, h in zip((z, y, x), cell, half, strict=True)
        )
        labels[box][far <= 1] = number
    with open_mrc_writer(path, shape, np.float32, voxel_size) as volume:
        for z, plane in enumerate(labels):
            volume[z] = plane


def main():
    """Make the files, describe and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shape", type=int, nargs=3, default=(300, 928, 960))
    options.add_argument("--voxel-size", type=float, default=14.0, help="Å")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", default="auto")
    options.add_argument("--folder", required=True, help="for tomogram and labels")
    arguments = options.parse_args()
    folder, shape = Path(arguments.folder), tuple(arguments.shape)
    folder.mkdir(parents=True, exist_ok=True)
    write_noise(folder / "tomogram.mrc", shape, arguments.voxel_size)
    write_labels(folder / "labels.mrc", shape, arguments.voxel_size)
    encoder = load_model("models/base-encoder", "encoder")
    watch = Watch()
    start, used = time.monotonic(), time.process_time()
    labels = np.asarray(read_volume(folder / "labels.mrc").data).astype(np.int32)
    loaded = time.monotonic() - start
    found = embed(
        read_volume(folder / "tomogram.mrc"),
        labels,
        encoder,
        "dark",
        arguments.device,
        arguments.threads,
    )
    wall, used = time.monotonic() - start, time.process_time() - used
    peak = watch.peak["VmRSS"] / 2**20
    own = watch.peak["RssAnon"] / 2**20
    print(
        f"{shape}, {len(found.instance)} instances: {wall:.1f} s wall (labels read in "
        f"{loaded:.1f}), {used:.1f} s CPU; peak {peak:.2f} GiB, own memory {own:.2f} GiB"
    )


if __name__ == "__main__":
    main()
