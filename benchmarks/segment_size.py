"""Time and memory of prediction from file to file, for volumes of any size.

``python benchmarks/segment_size.py --shape 300 928 960 --voxel-size 16 --folder FOLDER``

The tomogram is noise with discs in it: prediction does the same work whatever it shows. RssAnon is
the process's own memory; the rest of VmRSS is file cache, which the system takes back.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from cluster_size import Watch

from tomocensus.io import open_mrc_writer, read_volume
from tomocensus.models import load_model
from tomocensus.segment import predict_to_files


def write_noise(path: Path, shape: tuple[int, int, int], voxel_size: float) -> None:
    """Write a tomogram of int8 slice by slice."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[: shape[1], : shape[2]]
    discs = np.where((y % 64 - 32) ** 2 + (x % 64 - 32) ** 2 < 15**2, -30, 0)
    with open_mrc_writer(path, shape, np.int8, voxel_size) as volume:
        for plane in volume:
            noise = rng.standard_normal(shape[1:], np.float32) * 25
            plane[:] = np.clip(discs + noise, -127, 127).astype(np.int8)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shape", type=int, nargs=3, default=(300, 928, 960))
    options.add_argument("--voxel-size", type=float, default=16.0, help="Å")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--folder", required=True, help="for tomogram and maps")
    options.add_argument("--model", default="models/base-segmenter")
    arguments = options.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "tomogram.mrc"
    write_noise(source, tuple(arguments.shape), arguments.voxel_size)
    model = load_model(arguments.model, "segmenter")
    outputs = {head: folder / f"{head}.mrc" for head in model.card["heads"]}
    watch = Watch()
    start, used = time.monotonic(), time.process_time()
    facts = predict_to_files(read_volume(source), model, outputs, threads=arguments.threads)
    wall, used = time.monotonic() - start, time.process_time() - used
    peak = watch.peak["VmRSS"] / 2**20
    own = watch.peak["RssAnon"] / 2**20
    print(facts)
    print(
        f"{arguments.shape}: {wall:.0f} s wall, {used:.0f} s CPU, "
        f"{used / np.prod(arguments.shape) * 1e6:.2f} CPU µs a voxel; "
        f"peak {peak:.2f} GiB, own memory {own:.2f} GiB"
    )


if __name__ == "__main__":
    main()
