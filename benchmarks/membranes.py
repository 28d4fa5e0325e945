"""Instances from maps of membranes alone, as other programs draw them.

``python benchmarks/membranes.py --output table.md --picture docs/images/cluster-membranes.png``

The bilayers of simulated scenes as a binary map: whole; without what the missing wedge takes
(normals within 40 degrees of Z); and that blurred, with noise. Scored are the objects that a
membrane bounds, lumens and all, at IoU 0.5; those that a side of the volume cuts also apart. Scenes
are those of the project's simulator (crowded, other seeds than in ``end_to_end.py``), of
``other_simulator.py`` and of ``tilt_series.py``; nothing is imaged, for the map is given. Compared
with connected components whose holes are filled slice by slice (cc3d and scipy).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cc3d
import numpy as np
import other_simulator
import pandas as pd
import tilt_series
from cluster_foreign import own_tomogram, write_tables
from cluster_pictures import draw
from scipy import ndimage

from tomocensus.cluster import cluster
from tomocensus.evaluate import instance_scores

# Kinds that a membrane bounds, in any of the simulators.
BOUNDED = ("mitochondrion", "vesicle", "er", "golgi", "nuclear_envelope", "plasma_membrane")
BOUNDED += ("autophagosome", "virus_like_particle")
OWN = tuple(f"own/{first + n}" for first in (700_000, 900_000) for n in (1, 2, 4, 5))
OTHER = ("other/CTF/0", "other/coloured noise/1", "tilt series/usual/0", "tilt series/usual/1")
PICTURED = "own/700004"
# Degrees between a membrane's normal and Z within which the missing wedge takes it.
WEDGE = 40.0
BLUR, NOISE = 0.8, 0.1


def scene(name: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return bilayers (bool), instances of bounded kinds and the voxel size (Å) of a scene."""
    simulator, *case = name.split("/")
    if simulator == "own":
        made = own_tomogram(int(case[0]))
        labels, membrane = np.asarray(made.instances.data), np.asarray(made.membrane)
        kinds, voxel_size = made.classes, made.tomogram.voxel_size
    else:
        module = other_simulator if simulator == "other" else tilt_series
        volume, labels, kinds, membrane = module.tomogram(case[0], int(case[1]))
        voxel_size = volume.voxel_size
    bounded = [n for n, kind in dict(kinds).items() if kind in BOUNDED]
    return membrane > 0, np.where(np.isin(labels, bounded), labels, 0).astype(np.int32), voxel_size


def without_caps(bilayers: np.ndarray, wedge: float = WEDGE) -> np.ndarray:
    """Return bilayers without what faces Z: by the structure tensor of the blurred mask."""
    slopes = np.gradient(ndimage.gaussian_filter(bilayers.astype(np.float32), 1.0))
    here = np.nonzero(bilayers)
    tensor = np.empty((len(here[0]), 3, 3), np.float32)
    for a, b in np.ndindex(3, 3):
        tensor[:, a, b] = ndimage.gaussian_filter(slopes[a] * slopes[b], 2.0)[here]
    # Of the largest eigenvalue.
    normal = np.linalg.eigh(tensor)[1][:, :, 2]
    kept = bilayers.copy()
    kept[here] = np.abs(normal[:, 0]) < np.cos(np.radians(wedge))
    return kept


def maps_of(bilayers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the maps of a scene by name: bool or float32, 0-1."""
    yield "whole", bilayers
    torn = without_caps(bilayers)
    yield "without caps", torn
    noise = np.random.default_rng(0).normal(0, NOISE, torn.shape).astype(np.float32)
    blurred = ndimage.gaussian_filter(torn.astype(np.float32), BLUR)
    yield "without caps, blurred, noise", np.clip(blurred + noise, 0, 1)


def filled_components(chance: np.ndarray, least: float) -> np.ndarray:
    """Label components of at least so many voxels, with the holes of each in every slice."""
    labels = cc3d.connected_components(cc3d.dust(chance >= 0.5, least, connectivity=26))
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
        for plane in labels[box]:
            plane[ndimage.binary_fill_holes(plane == label) & (plane == 0)] = label
    return labels


def recall_at_sides(found: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Return how many objects that a side of the volume cuts are found, and how many there are."""
    sides = [truth.take(end, axis) for axis in (1, 2) for end in (0, -1)]
    cut = np.setdiff1d(np.unique(np.concatenate([side.ravel() for side in sides])), 0)
    return sum(other_simulator.is_found(found, truth == label) for label in cut), len(cut)


def rows_of(name: str) -> list[dict]:
    """Return a row of figures for each map of a scene."""
    bilayers, truth, voxel_size = scene(name)
    rows = []
    for map_name, chance in maps_of(bilayers):
        plain = filled_components(chance, 300_000 / voxel_size**3)
        start = time.process_time()
        found = cluster(chance, voxel_size)
        used = time.process_time() - start
        scores = instance_scores(found.labels, truth)
        hits, cut = recall_at_sides(found.labels, truth)
        rows.append(
            {
                "scene": name,
                "map": map_name,
                "objects": int(len(np.unique(truth)) - 1),
                "filled components, F1": instance_scores(plain, truth)["f1"],
                "F1": scores["f1"],
                "precision": scores["precision"],
                "recall": scores["recall"],
                "cut by a side, found": f"{hits} of {cut}",
                "CPU µs a voxel": used / truth.size * 1e6,
            }
        )
    return rows


def draw_scene(name: str, path: Path) -> None:
    """Draw the middle slice of a scene's maps without noise, of their instances and the truth."""
    bilayers, truth, voxel_size = scene(name)
    rows = []
    for map_name, chance in itertools.islice(maps_of(bilayers), 2):
        found = cluster(chance, voxel_size).labels
        rows.append([(f"map: {map_name}", chance), ("instances", found), ("truth", truth)])
    draw(path, rows)


def main() -> None:
    """Make the maps, cluster them and write the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scenes", nargs="+", default=[*OWN, *OTHER])
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--output")
    options.add_argument("--picture", type=Path, help="file for a picture of one scene")
    chosen = options.parse_args()
    if chosen.picture:
        draw_scene(PICTURED, chosen.picture)
    with ProcessPoolExecutor(chosen.processes) as pool:
        table = pd.DataFrame([row for rows in pool.map(rows_of, chosen.scenes) for row in rows])
    origin = np.where(table["scene"].str.startswith("own"), "own", "others")
    means = (
        table.groupby(["map", origin], sort=False).mean(numeric_only=True).drop(columns="objects")
    )
    means = means.rename_axis(["map", "simulator"]).reset_index()
    write_tables([means, table], chosen.output)


if __name__ == "__main__":
    main()
