"""The shipped models on samples of PolNet, a simulator of other authors.

PolNet (Martinez-Sanchez et al., IEEE Trans. Med. Imaging 2024; Apache-2.0) fills a volume with
membranes, filaments and proteins of known structure. It is no part of this project: get it from
https://github.com/anmartinezs/polnet (1.1.2 here), then

    python benchmarks/polnet.py --prepare FOLDER --data POLNET/data
    for seed in 1 2 3 4; do polnet FOLDER/$seed.yaml -s $seed; done
    python benchmarks/polnet.py --folder FOLDER --output benchmarks/polnet.md

Its own imaging needs IMOD; here that of ``tilt_series.py`` stands in: projections with CTF, dose,
shifts and noise, back-projected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cc3d
import mrcfile
import numpy as np
import pandas as pd
import yaml
from other_simulator import _markdown, fine_tuned, is_found
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay, cKDTree
from skimage.morphology import isotropic_closing
from tilt_series import Imaging, image

from tomocensus.atomic import write_text
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.distances import distance_inside
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.models import load_model
from tomocensus.segment import predict
from tomocensus.volume import Volume

VOXEL_SIZE = 10.0
# The first two for the figures, the others to annotate; these have closed vesicles on both sides.
SEEDS = (1, 4, 2, 3)
# More membrane than PolNet's own examples have.
OCCUPANCY = "(0.004, 0.008)"
PROTEINS = ("4v4r", "4cr2", "4v94", "2uv8", "6utj", "1bxn", "3cf3", "1s3x")
ON_MEMBRANES = ("6rd4", "5wek", "5gjv")
# What a user would ask for; other proteins are neither right nor wrong.
COMPLEXES = {
    "pdb_4v4r": "ribosome",
    "pdb_2uv8": "fatty acid synthase",
    "pdb_4v94": "chaperonin",
    "pdb_6utj": "ferritin",
    "pdb_4cr2": "proteasome",
}
# Its template shows two chaperonins that touch.
PAIRS = ("pdb_4v94",)
KINDS = {"mt": "microtubule", **COMPLEXES}
CASES = {
    "SNR 1": Imaging(VOXEL_SIZE, 1.0, (3, 5)),
    "SNR 0.3": Imaging(VOXEL_SIZE, 0.3, (3, 5)),
}
# Of the highest density of a protein; where its surface is.
SURFACE = 0.25
# Voxels; half the widest gap in an object that is taken for a part of it.
HOLLOW = {"mt": 12}
# Label of what an open membrane bounds, not scored; how much of a surface must have its membrane.
OPEN, WHOLE = -1, 0.85
# Voxels at the volume's sides that PolNet leaves empty.
MARGIN = 4
# Voxels; smaller pieces of a membrane are crumbs that another membrane left.
CRUMB = 200


def prepare(folder: Path, data: Path) -> None:
    """Write what PolNet is told."""
    folder.mkdir(parents=True, exist_ok=True)
    membranes = []
    for shape in ("sphere", "ellipsoid", "toroid"):
        text = (data / f"in_mbs/{shape}.mbs").read_text().replace("(0.001, 0.003)", OCCUPANCY)
        (folder / f"{shape}.mbs").write_text(text)
        membranes.append(str((folder / f"{shape}.mbs").resolve()))
    for seed in SEEDS:
        settings = {
            "folders": {"input": str(data.resolve()), "output": str(folder.resolve() / str(seed))},
            "global": {"ntomos": 1, "seed": seed},
            "sample": {
                "voi_shape": [256, 256, 88],
                "voi_offset": [MARGIN] * 3,
                "v_size": VOXEL_SIZE,
                "membranes": membranes,
                "filaments": ["in_flms/mt.flms", "in_flms/actin.flms"],
                "pns": [f"in_10A/{name}_10A.pns" for name in PROTEINS],
                "pms": [f"in_10A/mb_{name}_10A.pms" for name in ON_MEMBRANES],
            },
            "tem": {},
        }
        (folder / f"{seed}.yaml").write_text(yaml.safe_dump(settings))


def read_sample(folder: Path):
    """Return density, instances, their kinds, bilayers, and what nobody asks for, of a sample.

    Membrane-bound objects hold their lumens; proteins in there stay their own.
    """
    place = next(folder.glob("Tomo*"))
    density, numbers = (mrcfile.read(next(place.glob(f"*_{name}.mrc"))) for name in ("den", "lbl"))
    motifs = pd.read_csv(next(place.glob("*_motif_list.csv")), sep="\t")
    labels, kinds = np.zeros(density.shape, np.int32), {}
    membrane, others = np.zeros(density.shape, bool), np.zeros(density.shape, bool)
    groups = list(motifs.groupby(["type", "label", "code"]))
    for (sort, number, code), _ in groups:
        if sort == "membrane":
            here = numbers == number
            membrane |= here
            for box, inside, is_whole in _bounded(here, code):
                if is_whole:
                    kinds[len(kinds) + 1] = "vesicle"
                labels[box][inside] = len(kinds) if is_whole else OPEN
    for (sort, number, code), part in groups:
        if sort == "membrane":
            continue
        voxels = np.argwhere(numbers == number)
        if code not in KINDS:
            labels[tuple(voxels.T)] = 0
            others[tuple(voxels.T)] = True
            continue
        _, near = cKDTree(part[["z", "y", "x"]].to_numpy() / VOXEL_SIZE).query(voxels)
        own = (part["polymer"].to_numpy() if sort == "filament" else np.arange(len(part)))[near]
        if code in PAIRS:
            own = 2 * own + _half(voxels, own)
        for name in np.unique(own):
            mine = voxels[own == name]
            # PolNet's own outlines are where a protein's blurred density fades.
            surface = mine[density[tuple(mine.T)] >= SURFACE]
            kinds[len(kinds) + 1] = KINDS[code]
            labels[tuple(_full(surface, HOLLOW.get(code, 3)).T)] = len(kinds)
            rest = mine[labels[tuple(mine.T)] != len(kinds)]
            others[tuple(rest.T)] = True
    others &= labels == 0
    return density.astype(np.float32), labels, kinds, membrane, others


def _half(voxels: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return 0 or 1: the side of its object's middle, along the longest axis, of each voxel."""
    side = np.zeros(len(voxels), int)
    for name in np.unique(number):
        mine = number == name
        away = voxels[mine] - voxels[mine].mean(axis=0)
        side[mine] = away @ np.linalg.eigh(away.T @ away)[1][:, -1] > 0
    return side


def _full(voxels: np.ndarray, radius: int) -> np.ndarray:
    """Return the voxels of an object with its gaps up to twice a radius, and its holes."""
    low = voxels.min(axis=0) - radius - 1
    mask = np.zeros(voxels.max(axis=0) - low + radius + 2, bool)
    mask[tuple((voxels - low).T)] = True
    return np.argwhere(ndimage.binary_fill_holes(isotropic_closing(mask, radius))) + low


def _bounded(membrane: np.ndarray, shape: str):
    """Yield box and mask of what each membrane bounds, and whether it does so all around.

    PolNet cuts some off at a plane: what is inside and what is not nobody can see there. Where the
    volume's own sides cut, that counts for nothing.
    """
    parts = cc3d.connected_components(membrane, connectivity=26)
    for number, box in enumerate(ndimage.find_objects(parts.astype(np.int32)), start=1):
        shell = parts[box] == number
        if np.count_nonzero(shell) < CRUMB:
            continue
        if shape == "toroid":
            closed = shell.copy()
            for axis in range(3):
                for end in (0, -1):
                    side = tuple(end if a == axis else slice(None) for a in range(3))
                    closed[side] |= ndimage.binary_fill_holes(shell[side])
            inside = ndimage.binary_fill_holes(closed)
        else:
            points = np.argwhere(shell)
            hull = Delaunay(points[ConvexHull(points).vertices])
            grid = np.indices(shell.shape).reshape(3, -1).T
            inside = (hull.find_simplex(grid) >= 0).reshape(shell.shape)
        yield box, inside, _is_whole(inside, shell, box, membrane.shape)


def _is_whole(inside: np.ndarray, shell: np.ndarray, box, volume) -> bool:
    """Tell whether a membrane lies on nearly all of the surface of what it bounds."""
    surface = inside & (distance_inside(inside) <= 1.5)
    for axis, (side, length) in enumerate(zip(box, volume, strict=True)):
        for end, cut in ((0, side.start <= MARGIN), (-1, side.stop >= length - MARGIN)):
            if cut:
                surface[tuple(end if a == axis else slice(None) for a in range(3))] = False
    near = distance_inside(~shell, border=False) <= 3
    walled = np.count_nonzero(surface & near) >= WHOLE * np.count_nonzero(surface)
    return bool(walled) and np.count_nonzero(inside) > 1.2 * np.count_nonzero(shell)


def tomogram(case: str, seed: int, folder: Path):
    """Return tomogram and truth (labels, kinds, bilayers, others) of one sample."""
    density, *truth = read_sample(folder / str(seed))
    rng = np.random.default_rng([91, list(CASES).index(case), seed])
    return Volume(image(rng, density, CASES[case]), VOXEL_SIZE), *truth


def measure(made, model, threads: int) -> tuple[dict, pd.Series]:
    """Return scores of one tomogram, and for each object whether it is found."""
    volume, labels, kinds, membrane, others = made
    maps = predict(volume, model, "dark", threads=threads)
    parameters = ClusterParameters()
    found = cluster(maps["probability"], VOXEL_SIZE, parameters, maps["boundary"], threads).labels
    near = ndimage.binary_dilation(others, iterations=2) & (labels == 0) | (labels == OPEN)
    size = np.bincount(found.ravel())
    free = np.bincount(found[~near], minlength=len(size)) >= 0.5 * size
    asked = np.where(free[found], found, 0)
    scores = instance_scores(asked, np.maximum(labels, 0))
    hit = pd.Series({n: is_found(found, labels == n) for n in kinds})
    return {
        "Dice": voxel_scores(maps["probability"], np.where(near, -1, labels))["dice"],
        "membrane Dice": voxel_scores(maps["membrane"], membrane.astype(int))["dice"],
        **{name: scores[name] for name in ("f1", "precision", "recall")},
    }, hit.rename(kinds)


def main() -> None:
    """Prepare PolNet's input, or measure and write the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--prepare", type=Path)
    options.add_argument("--data", type=Path, help="PolNet's folder of that name")
    options.add_argument("--folder", type=Path)
    options.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options.add_argument("--steps", type=int, default=300, help="of fine-tuning; 0: none")
    options.add_argument("--segmenter", default="models/base-segmenter")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--output")
    chosen = options.parse_args()
    if chosen.prepare:
        prepare(chosen.prepare, chosen.data)
        return
    base = load_model(chosen.segmenter, "segmenter")
    rows, hits = [], []
    for case in chosen.cases:
        fields = [tomogram(case, seed, chosen.folder) for seed in SEEDS]
        models = {"base": base}
        if chosen.steps:
            # Other proteins are background for who annotates.
            models["fine-tuned"] = fine_tuned(
                fields[2:], "dark", base, chosen.steps, chosen.threads
            )
        for name, model in models.items():
            for seed, made in zip(SEEDS, fields[:2], strict=False):
                scores, hit = measure(made, model, chosen.threads)
                rows.append({"case": case, "model": name, "field": seed, **scores})
                hits.append(hit.groupby(level=0).agg(["sum", "size"]).assign(case=case, model=name))
                print(rows[-1], dict(hits[-1]["sum"]), flush=True)
    table = pd.DataFrame(rows).drop(columns="field")
    table = table.groupby(["case", "model"], sort=False).mean().reset_index()
    every = pd.concat(hits).rename_axis("kind").reset_index()
    every = every.groupby(["case", "model", "kind"], sort=False)[["sum", "size"]].sum()
    recall = (every["sum"] / every["size"]).unstack("kind").reset_index()
    counts = every["size"].groupby("kind").max()
    text = f"""# Samples of PolNet: figures

Commands: see `benchmarks/polnet.py`; {chosen.steps} steps of fine-tuning, segmenter
{base.card["sha256"][:12]}.

Two fields (88, 256, 256) of 10 Å of each case: membranes (spheres, ellipsoids, toroids; lumens
included), microtubules and large complexes, {", ".join(f"{n} {k}" for k, n in counts.items())}.
Smaller proteins, proteins in membranes and actin are there too; what is found of these is neither
right nor wrong. Fine-tuning: three slices of each of two other fields, where they are background.
Dice at 0.5; F1, precision and recall at IoU 0.5 with the default settings.

{_markdown(table)}

Recall of each kind:

{_markdown(recall)}
"""
    if chosen.output:
        write_text(chosen.output, text)
    print(text)


if __name__ == "__main__":
    main()
