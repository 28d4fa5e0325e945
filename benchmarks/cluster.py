"""Accuracy and CPU time of clustering against components and distance watershed.

Usage: python benchmarks/cluster.py [--count 60] [--seeds 2] [--picture FILE]

More than 60 objects get a larger volume, so that they are as crowded.
"""

import argparse
import time

import cc3d
import numpy as np
from cluster_scenes import dense_scene, f1, ragged, rough
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from tomocensus.cluster import ClusterParameters, cluster

KINDS = ("solid", "shell", "caps", "torn", "mixed")
PARAMETERS = ClusterParameters(minimum_volume=60)


def smoothed(volume):
    """Give every method the same smoothing of a map that is not binary."""
    if volume.dtype == bool:
        return volume
    return ndimage.gaussian_filter(volume, 1.0) >= 0.5


def components(volume):
    return cc3d.connected_components(smoothed(volume), connectivity=26)


def distance_watershed(volume):
    """Filled, then label + distance transform + peak_local_max + watershed, as in tutorials."""
    mask = ndimage.binary_fill_holes(smoothed(volume))
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=5, labels=components(mask).astype(np.int32))
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


def ours(volume):
    return cluster(volume, 1.0, PARAMETERS).labels


METHODS = {"components": components, "distance watershed": distance_watershed, "cluster": ours}


def variants(mask, seed):
    rng = np.random.default_rng(seed)
    return {
        "clean": mask,
        "rough": rough(mask, rng, 0.8),
        "soft map": ragged(mask, rng, 0.8, 0.1),
        "noisy map": ragged(mask, rng, 1.0, 0.2),
        "ragged map": ragged(mask, rng),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    larger = max(1.0, arguments.count / 60) ** (1 / 3)
    shape = tuple(round(larger * n) for n in (96, 160, 160))
    for kind in KINDS:  # compile first
        ours(dense_scene(0, count=5, kind=kind)[0])
    print("| scene | " + " | ".join(f"{name}: F1, CPU µs/voxel" for name in METHODS) + " |")
    print("|---" * (len(METHODS) + 1) + "|")
    for kind in KINDS:
        scores = {}
        for seed in range(arguments.seeds):
            mask, truth = dense_scene(seed, shape, arguments.count, kind)
            for variant, volume in variants(mask, seed).items():
                for name, method in METHODS.items():
                    start = time.process_time()
                    labels = method(volume)
                    spent = (time.process_time() - start) / mask.size * 1e6
                    scores.setdefault((variant, name), []).append((f1(labels, truth), spent))
        for variant in variants(mask, 0):
            cells = [np.mean(scores[variant, name], axis=0) for name in METHODS]
            row = " | ".join(f"{score:.2f}, {spent:.2f}" for score, spent in cells)
            print(f"| {kind}, {variant} | {row} |", flush=True)
    if arguments.picture:
        draw(arguments.picture)


def draw(path):
    """Draw a slice of each kind of scene: mask, components, watershed, this method, truth."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rng = np.random.default_rng(1)
    colours = matplotlib.colors.ListedColormap(
        np.vstack([[0, 0, 0], rng.uniform(0.25, 1, (400, 3))])
    )
    titles = ["mask", *METHODS, "truth"]
    figure, axes = pyplot.subplots(3, len(titles), figsize=(10, 6.3))
    for row, kind in zip(axes, ("solid", "caps", "torn"), strict=True):
        mask, truth = dense_scene(1, count=60, kind=kind)
        mask = rough(mask, np.random.default_rng(1), 0.8)
        z = mask.shape[0] // 2
        images = [mask.astype(int) * 7, *(method(mask) for method in METHODS.values()), truth]
        for axis, image, title in zip(row, images, titles, strict=True):
            axis.imshow(image[z] % 400 + (image[z] >= 400), colours, vmin=0, vmax=400)
            axis.set_title(title if row is axes[0] else "", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(kind)
    figure.tight_layout()
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    main()
