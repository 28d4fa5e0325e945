"""Instances from ragged probability maps: this method's defaults against others, tuned.

Usage: python benchmarks/cluster_ragged.py [--seeds 2] [--count 60]

Truth is corrupted as predicted maps are (../docs/clustering.md): blurred, noisy, with specks,
bridges between neighbours and a bias that drifts. The others take the best of all their settings,
found on the very scene; this method takes its defaults.
"""

import argparse
import itertools

import cc3d
import numpy as np
from cluster_scenes import dense_scene, f1, tube
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import find_boundaries, watershed

from tomocensus.cluster import ClusterParameters, cluster

STRENGTHS = {"mild": (1.0, 0.15, 0.10), "ragged": (1.5, 0.25, 0.15), "bad": (2.0, 0.35, 0.20)}


def noise(shape, rng, sigma):
    """Return smooth noise of standard deviation 1."""
    waves = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma)
    return waves / waves.std()


def corrupted(truth, rng, strength="ragged"):
    """Return a map of objects and one of their outlines (float32, 0-1) as networks predict them."""
    blur, grain, drift = STRENGTHS[strength]
    objects = (truth > 0).astype(np.float32)
    centres = np.array(ndimage.center_of_mass(truth > 0, truth, np.arange(1, truth.max() + 1)))
    for _ in range(len(centres) // 2):
        # From one object to its nearest neighbour.
        one = centres[rng.integers(len(centres))]
        other = centres[np.argsort(np.linalg.norm(centres - one, axis=1))[1]]
        objects[tube(truth.shape, np.linspace(one, other, 40), rng.uniform(1.5, 3))] = 1
    for _ in range(truth.size // 10_000):
        at = rng.uniform(3, np.array(truth.shape) - 3)
        objects[tube(truth.shape, at[None], rng.uniform(1, 2.5))] = rng.uniform(0.5, 1)
    chance = ndimage.gaussian_filter(objects, blur)
    chance += grain * noise(truth.shape, rng, 1.0) + drift * noise(truth.shape, rng, 20)
    outline = find_boundaries(truth, mode="thick").astype(np.float32)
    outline = 1.6 * ndimage.gaussian_filter(outline, 0.7 * blur)
    outline += grain * noise(truth.shape, rng, 1.0)
    return np.clip(chance, 0, 1), np.clip(outline, 0, 1)


def tuned_components(chance, truth, smallest):
    """Return the best F1 of cc3d over thresholds and smoothing."""
    best = 0.0
    for sigma, level in itertools.product((0, 1, 1.5, 2, 3), (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
        soft = ndimage.gaussian_filter(chance, sigma)
        labels = cc3d.dust(soft >= level, smallest, connectivity=26)
        best = max(best, f1(cc3d.connected_components(labels, connectivity=26), truth))
    return best


def tuned_watershed(chance, truth, smallest):
    """Return the best F1 of label + distance transform + peak_local_max + watershed."""
    best = 0.0
    for sigma, level in itertools.product((0, 1, 1.5, 2), (0.4, 0.5, 0.6, 0.7)):
        mask = cc3d.dust(ndimage.gaussian_filter(chance, sigma) >= level, smallest, connectivity=26)
        mask = ndimage.binary_fill_holes(mask > 0)
        distance = ndimage.distance_transform_edt(mask)
        for apart in (5, 8):
            peaks = peak_local_max(distance, min_distance=apart, labels=mask.astype(np.int32))
            seeds = np.zeros(mask.shape, np.int32)
            seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
            labels = watershed(-distance, seeds, mask=mask)
            best = max(best, f1(cc3d.dust(labels, smallest), truth))
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--count", type=int, default=60)
    arguments = parser.parse_args()
    smallest = 300
    print("| map | cc3d, tuned | watershed, tuned | cluster | auto | with outlines |")
    print("|---" * 6 + "|")
    for strength in STRENGTHS:
        rows = []
        for seed in range(arguments.seeds):
            _, truth = dense_scene(seed, count=arguments.count)
            chance, outline = corrupted(truth, np.random.default_rng(seed), strength)
            plain = ClusterParameters(minimum_volume=smallest)
            auto = ClusterParameters(minimum_volume=smallest, threshold="auto")
            rows.append(
                [
                    tuned_components(chance, truth, smallest),
                    tuned_watershed(chance, truth, smallest),
                    f1(cluster(chance, 1.0, plain).labels, truth),
                    f1(cluster(chance, 1.0, auto).labels, truth),
                    f1(cluster(chance, 1.0, plain, boundary=outline).labels, truth),
                ]
            )
        cells = " | ".join(f"{value:.2f}" for value in np.mean(rows, axis=0))
        print(f"| {strength} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
