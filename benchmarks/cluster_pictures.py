"""Draw the pictures of docs/clustering.md: each kind of scene and each parameter, before and after.

Usage: python benchmarks/cluster_pictures.py [--folder docs/images]
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from cluster_ragged import corrupted
from cluster_scenes import ball, dense_scene, double_membrane, rough, shell
from cluster_shapes import draw_solid, solids

from tomocensus.cluster import ClusterParameters, cluster

matplotlib.use("Agg")
from matplotlib import pyplot

COLOURS = matplotlib.colors.ListedColormap(
    np.vstack([[0, 0, 0], np.random.default_rng(1).uniform(0.25, 1, (255, 3))])
)


def labels_of(volume, boundary=None, **settings):
    settings = {"minimum_volume": 60, **settings}
    return cluster(volume, 1.0, ClusterParameters(**settings), boundary=boundary).labels


def draw(path, rows):
    """Draw rows of (title, volume) panels: a slice through the middle of each."""
    width = max(len(row) for row in rows)
    figure, axes = pyplot.subplots(
        len(rows), width, figsize=(2.1 * width, 2.2 * len(rows)), squeeze=False
    )
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, (title, volume) in zip(line, row, strict=False):
            plane = volume[volume.shape[0] // 2]
            if plane.dtype.kind == "i":
                shown = np.where(plane > 0, (plane - 1) % 255 + 1, 0)
                axis.imshow(shown, COLOURS, vmin=0, vmax=255, interpolation="nearest")
            else:
                axis.imshow(plane, "gray", vmin=0, vmax=1)
            axis.set_title(title, fontsize=8)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=75, bbox_inches="tight", pad_inches=0.05)
    pyplot.close(figure)


def scenes(folder):
    for kind in ("solid", "shell", "caps", "torn", "mixed"):
        mask, truth = dense_scene(1, shape=(64, 112, 112), count=25, kind=kind)
        mask = rough(mask, np.random.default_rng(1), 0.8)
        row = [("before: mask", mask), ("after: instances", labels_of(mask)), ("truth", truth)]
        draw(folder / f"cluster-{kind}.png", [row])
    mask = double_membrane(np.random.default_rng(0), 0.01)
    row = [("before: mask", mask), ("after: instances", labels_of(mask))]
    draw(folder / "cluster-double.png", [row])
    _, truth = dense_scene(1, shape=(64, 112, 112), count=25)
    chance, outline = corrupted(truth, np.random.default_rng(1))
    alone, both = (
        labels_of(chance, minimum_volume=300),
        labels_of(chance, outline, minimum_volume=300),
    )
    draw(
        folder / "cluster-ragged.png",
        [
            [
                ("before: ragged map", chance),
                ("after", alone),
                ("after, with outlines", both),
                ("truth", truth),
            ]
        ],
    )


def shapes(folder):
    names = (
        "banana 180",
        "T",
        "tube with a neck of 70 %",
        "tube with a neck of 30 %",
        "balls overlapping 40 %",
        "ball at the side of a capsule",
    )
    rows = [[], []]
    for name in names:
        mask = draw_solid(solids()[name][0], 20_000, noise=0.6)
        rows[0].append((name, mask))
        rows[1].append(("", labels_of(mask)))
    draw(folder / "cluster-shapes.png", rows)


def parameters(folder):
    def both(name, title, volume, before, after):
        row = [(title, volume)]
        row += [
            (", ".join(f"{k}: {v}" for k, v in settings.items()), labels_of(volume, **settings))
            for settings in (before, after)
        ]
        draw(folder / f"cluster-{name}.png", [row])

    shape = (40, 64, 96)
    faint = 0.9 * ball(shape, (20, 32, 26), 17) + 0.35 * ball(shape, (20, 32, 70), 17)
    both("threshold", "map", faint, {"threshold": 0.5}, {"threshold": 0.2})
    specks = np.zeros(shape, bool)
    for x, radius in ((12, 3), (26, 5), (44, 8), (74, 16)):
        specks |= ball(shape, (20, 32, x), radius)
    both("minimum_volume", "mask", specks, {"minimum_volume": 50}, {"minimum_volume": 1000})
    pair = ball(shape, (20, 32, 33), 17) | ball(shape, (20, 32, 62), 17)
    both("neck", "mask", pair, {"neck": 0.8}, {"neck": 0.4})
    both("solidity", "mask", pair, {"solidity": 0.98}, {"solidity": 0.8})
    both("convexity", "mask", pair, {"convexity": True}, {"convexity": False})
    open_shell = shell(shape, (20, 32, 48), 18, 3, cap=40)
    both("fill", "mask", open_shell, {"fill": True}, {"fill": False})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    folder = parser.parse_args().folder
    scenes(folder)
    shapes(folder)
    parameters(folder)


if __name__ == "__main__":
    main()
