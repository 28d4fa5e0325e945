"""The shipped models on tomograms of another, much plainer simulator than they were trained with.

``python benchmarks/other_simulator.py --output benchmarks/other_simulator.md``

Nothing here uses ``tomocensus.simulate``: shapes are analytic, the missing wedge is cut out in
Fourier space, the noise is Gaussian (white or coloured), one CTF or none. A model that has learnt
its own simulator's habits instead of cells shows it here.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd
from classify import forest_guesses, untrained
from scipy import ndimage
from scipy.spatial.transform import Rotation
from sklearn.metrics import f1_score, roc_auc_score

from tomocensus.atomic import write_text
from tomocensus.classify import apply_head, fit_head
from tomocensus.classify.head import calibration_error
from tomocensus.classify.pretrain import described
from tomocensus.classify.views import views
from tomocensus.cluster import ClusterParameters, cluster
from tomocensus.evaluate import instance_scores, voxel_scores
from tomocensus.models import Model, load_model
from tomocensus.segment import AnnotatedVolume, TrainSettings, predict, train
from tomocensus.volume import Volume

SHAPE = (72, 288, 288)
# Objects of each kind tried in 1 µm³, in this order; those that find room are placed.
ABUNDANCE = {
    "mitochondrion": 150,
    "virus_like_particle": 800,
    "er": 1000,
    "microtubule": 1000,
    "dense_body": 800,
    "vesicle": 4000,
    "ribosome": 10_000,
}
MEMBRANE = 40.0
AXES = (0, 1, 2)
ROOM = (36, 16, 16)
# Fields of each case: the first half is for the figures, the rest for examples and annotation.
FIELDS = 4
PLACES = 40
BORDER_OBJECTS_TOO = 0.15


@dataclass(frozen=True)
class Imaging:
    """How one data set is imaged.

    Parameters
    ----------
    voxel_size : float
        Å.
    snr : float
        Variance of the image to variance of the noise, over the whole volume.
    defocus : float, optional
        µm; no CTF where None.
    lowpass : float
        Å, of a Gaussian low-pass of the image.
    colour : float
        Noise power falls with this power of the frequency.
    tilt : float
        Highest tilt in degrees.
    polarity : str
        ``dark`` or ``bright``.
    """

    voxel_size: float
    snr: float
    defocus: float | None = None
    lowpass: float = 0.0
    colour: float = 0.0
    tilt: float = 60.0
    polarity: str = "dark"


CASES = {
    "plain, noisy": Imaging(10.7, 0.1),
    "CTF": Imaging(10.7, 0.3, defocus=4.0),
    "CTF, noisy": Imaging(10.7, 0.1, defocus=4.0),
    "CTF, 40 degrees": Imaging(12.0, 0.2, defocus=3.0, tilt=40.0),
    "low-pass": Imaging(14.0, 0.3, lowpass=25.0),
    "coloured noise": Imaging(13.0, 0.3, colour=1.0),
    "bright, CTF": Imaging(10.7, 0.3, defocus=3.0, polarity="bright"),
    "coarse": Imaging(20.0, 0.4),
}


# --- objects: distance to the middle line or point, radius, density as a function of depth --------


def grid_of(reach) -> np.ndarray:
    """Return z, y, x of a box around 0 that reaches so far (one number or three)."""
    halves = np.ceil(np.broadcast_to(reach, 3)).astype(int) + 1
    axes = [np.arange(-half, half + 1, dtype=np.float32) for half in halves]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def line_distance(points: np.ndarray, grid: np.ndarray) -> np.ndarray:
    away = np.ones(grid.shape[:-1], bool)
    places = np.rint(points - grid[0, 0, 0]).astype(int)
    away[tuple(places.T)] = False
    return ndimage.distance_transform_edt(away)


def _shell(distance, radius, membrane, lumen):
    return np.where(distance > radius - membrane, 1.0, lumen)


def make_object(kind: str, rng: np.random.Generator, voxel_size: float):
    """Return mask, density and membrane of one object in a box of its own."""
    unit = 1 / voxel_size
    membrane = MEMBRANE * unit
    if kind in ("er", "microtubule"):
        return _filament(kind, rng, unit)
    low, high = {
        "vesicle": (200, 500),
        "mitochondrion": (700, 1100),
        "ribosome": (115, 135),
        "dense_body": (250, 600),
        "virus_like_particle": (350, 600),
    }[kind]
    radius = rng.uniform(low, high) * unit
    stretch = {"vesicle": 0.15, "dense_body": 0.25}.get(kind, 0.0)
    axes = 1 + rng.uniform(-stretch, stretch, 3)
    length = rng.uniform(0, 1500) * unit if kind == "mitochondrion" else 0.0
    rotation = Rotation.random(random_state=rng).as_matrix()
    turned = grid_of(radius * axes.max() + length / 2) @ rotation
    place = turned / axes
    place[..., 2] -= np.clip(place[..., 2], -length / 2, length / 2)
    distance = np.linalg.norm(place, axis=-1)
    if kind == "ribosome":
        bumps = ndimage.gaussian_filter(rng.normal(size=distance.shape), 40 * unit)
        distance = distance + bumps / bumps.std() * 15 * unit
    inside = distance <= radius
    bilayer = inside & (distance > radius - membrane)
    if kind == "vesicle":
        density = _shell(distance, radius, membrane, rng.choice([0.0, 0.1, 0.35]))
    elif kind == "mitochondrion":
        inner = radius - membrane - 130 * unit
        density = _shell(distance, radius, membrane, 0.05)
        density[distance <= inner] = 1.0
        wave = np.sin(np.pi * turned[..., 2] / (400 * unit) + np.sin(turned[..., 1] / 20))
        cristae = (np.abs(wave) < 0.16) & (turned[..., 1] > -0.3 * radius)
        density[distance <= inner - membrane] = np.where(cristae, 1.0, 0.25)[
            distance <= inner - membrane
        ]
        bilayer |= (distance <= inner) & (cristae | (distance > inner - membrane))
    elif kind == "ribosome":
        density, bilayer = np.full(distance.shape, 1.5), np.zeros_like(inside)
    elif kind == "dense_body":
        density, bilayer = np.full(distance.shape, rng.uniform(0.7, 1.1)), np.zeros_like(inside)
    else:
        density = _shell(distance, radius, membrane, 0.2)
        density[distance < 0.45 * radius] = 1.2
    return inside, density.astype(np.float32), bilayer


def _filament(kind: str, rng: np.random.Generator, unit: float):
    if kind == "microtubule":
        radius, length = 125 * unit, rng.uniform(1500, 5000) * unit
        azimuth, rise = rng.uniform(0, 2 * np.pi), rng.uniform(-0.25, 0.25)
        along = np.array([rise, np.sin(azimuth), np.cos(azimuth)])
        points = np.linspace(-length / 2, length / 2, int(2 * length))[:, None] * along
    else:
        radius, length = rng.uniform(120, 250) * unit, rng.uniform(1000, 2500) * unit
        turns = rng.normal(0, 0.06, (int(length), 3))
        along = rng.normal(size=3) / 2 + np.cumsum(turns, axis=0)
        points = np.cumsum(along / np.linalg.norm(along, axis=1, keepdims=True), axis=0)
        points -= points.mean(axis=0)
    grid = grid_of(np.abs(points).max(axis=0) + radius)
    distance = line_distance(points, grid)
    inside = distance <= radius
    if kind == "microtubule":
        density, bilayer = np.where(distance > radius - 50 * unit, 1.2, 0.0), np.zeros_like(inside)
    else:
        density = _shell(distance, radius, MEMBRANE * unit, 0.05)
        bilayer = inside & (distance > radius - MEMBRANE * unit)
    return inside, density.astype(np.float32), bilayer


# --- scenes --------------------------------------------------------------------------------------


def scene(rng: np.random.Generator, shape: tuple[int, int, int], voxel_size: float):
    """Place objects, large ones first, also touching; return density, labels, kinds, membrane."""
    density, labels = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    membrane = np.zeros(shape, bool)
    kinds: dict[int, str] = {}
    volume = np.prod(shape) * voxel_size**3 / 1e12
    for kind, number in ABUNDANCE.items():
        for _ in range(rng.poisson(number * volume)):
            inside, values, bilayer = make_object(kind, rng, voxel_size)
            window = find_room(inside, labels, rng)
            if window is None:
                continue
            here, part = window
            chosen = inside[part]
            kinds[len(kinds) + 1] = kind
            labels[here][chosen] = len(kinds)
            density[here][chosen] = values[part][chosen]
            membrane[here][chosen] = bilayer[part][chosen]
    return density, labels, kinds, membrane


def find_room(inside, labels, rng):
    """Return slices of the scene and of the box where an object is free of others, or None.

    Some objects may be cut by the border; the middle of each lies inside.
    """
    box, shape = np.array(inside.shape), np.array(labels.shape)
    for _ in range(PLACES):
        start = np.floor(rng.uniform(0, shape)).astype(int) - box // 2
        cut = (start < 0) | (start + box > shape)
        if cut[1:].any() and rng.random() > BORDER_OBJECTS_TOO:
            continue
        low, high = np.maximum(start, 0), np.minimum(start + box, shape)
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
        if inside[part].sum() >= 0.3 * inside.sum() and not labels[here][inside[part]].any():
            return here, part
    return None


def image(rng: np.random.Generator, density: np.ndarray, imaging: Imaging) -> np.ndarray:
    """Return the tomogram of a density: cytosol, CTF, missing wedge and noise."""
    size = imaging.voxel_size
    # The Fourier transform is periodic: what is cut at one border would blur in at the other.
    inner = tuple(slice(room, room + n) for room, n in zip(ROOM, density.shape, strict=True))
    density = np.pad(density, [(room, room) for room in ROOM])
    cytosol = ndimage.gaussian_filter(rng.normal(size=density.shape), 25 / size)
    density = density + 0.15 * cytosol / cytosol.std() * 0.5
    nz, ny, nx = density.shape
    kz, ky, kx = np.meshgrid(
        np.fft.fftfreq(nz), np.fft.fftfreq(ny), np.fft.rfftfreq(nx), indexing="ij", sparse=True
    )
    k = np.sqrt(kz**2 + ky**2 + kx**2) / size
    seen = np.abs(kz) <= np.tan(np.deg2rad(imaging.tilt)) * np.abs(kx) + 1e-9
    transfer = np.exp(-((k * imaging.lowpass) ** 2) / 2)
    if imaging.defocus:
        wavelength, aberration = 0.0197, 2.7e7
        phase = np.pi * wavelength * imaging.defocus * 1e4 * k**2
        phase -= np.pi / 2 * aberration * wavelength**3 * k**4
        transfer = transfer * np.sin(phase + 0.07) * np.exp(-15 * k**2)
    signal = np.fft.irfftn(np.fft.rfftn(density) * transfer * seen, s=density.shape, axes=AXES)
    signal = signal[inner]
    spectrum = np.fft.rfftn(rng.normal(size=density.shape)) * seen
    spectrum = spectrum / (k + 1 / (40 * size)) ** imaging.colour
    noise = np.fft.irfftn(spectrum, s=density.shape, axes=AXES)[inner]
    noise *= signal.std() / np.sqrt(imaging.snr) / noise.std()
    sign = -1 if imaging.polarity == "dark" else 1
    return (sign * (signal + noise)).astype(np.float32)


def tomogram(case: str, number: int):
    """Return tomogram (Volume), labels, kinds and membrane of one field of a data set."""
    imaging = CASES[case]
    rng = np.random.default_rng([list(CASES).index(case), number])
    density, *truth = scene(rng, SHAPE, imaging.voxel_size)
    return Volume(image(rng, density, imaging), imaging.voxel_size), *truth


# --- figures -------------------------------------------------------------------------------------


def segment(made, polarity: str, model: Model, threads: int | None) -> dict:
    """Return Dice and instance scores of one tomogram, and the recall of each kind."""
    volume, labels, kinds, membrane = made
    maps = predict(volume, model, polarity, threads=threads)
    found = cluster(
        maps["probability"], volume.voxel_size, ClusterParameters(), maps["boundary"]
    ).labels
    scores = instance_scores(found, labels)
    hit = pd.Series({n: is_found(found, labels == n) for n in kinds})
    recall = hit.groupby(pd.Series(kinds)).mean().to_dict()
    return {
        "Dice": voxel_scores(maps["probability"], labels)["dice"],
        "membrane Dice": voxel_scores(maps["membrane"], membrane.astype(int))["dice"],
        **{name: scores[name] for name in ("f1", "precision", "recall")},
        **recall,
    }


def is_found(found: np.ndarray, mask: np.ndarray) -> bool:
    """Tell whether one of the instances found is an object's mask (IoU of at least 0.5)."""
    counts = np.bincount(found[mask])
    counts[0] = 0
    best = int(counts.argmax())
    overlap = counts[best]
    return bool(overlap) and overlap / ((found == best).sum() + mask.sum() - overlap) >= 0.5


def fine_tuned(fields, polarity: str, base: Model, steps: int, threads: int | None) -> Model:
    """Fine-tune the base on three slices of each of two tomograms."""
    pairs = []
    for number, (volume, labels, *_) in enumerate(fields):
        annotation = np.full(labels.shape, -1, np.int32)
        for z in np.linspace(0, len(labels), 5).astype(int)[1:4]:
            annotation[z] = labels[z]
        pairs.append(AnnotatedVolume(str(number), volume, annotation, polarity, "instance"))
    card, weights, _ = train(pairs, base, TrainSettings(steps=steps, threads=threads))
    return Model({**card, "sha256": "tuned"}, weights)


def naming(fields, polarity: str, encoder: Model, default: Model) -> pd.DataFrame:
    """Name correctly separated objects; examples from the second half of the fields."""
    seen, names, places = [], [], []
    for place, (volume, labels, kinds, _) in enumerate(fields):
        size = np.bincount(labels.ravel())
        small = size * volume.voxel_size**3 < ClusterParameters().minimum_volume
        some = list(views(volume, np.where(small[labels], 0, labels), polarity))
        seen += some
        names += [kinds[view.number] for view in some]
        places += [place] * len(some)
    known = described(seen, encoder, np.array(places))
    truth = pd.DataFrame({"tomogram": places, "instance": np.arange(len(seen)), "class": names})
    for_examples = truth["tomogram"] >= len(fields) // 2
    test, others = truth[~for_examples], truth[for_examples]
    guesses = []
    for each in (3, 10):
        for seed in range(3):
            examples = _examples(others, each, seed)
            head = _head(known, examples, encoder, default)
            guesses.append(_named(head, known, test).assign(head=f"{each} examples", draw=seed))
            head = _head(known, examples, encoder)
            alone = _named(head, known, test).assign(head=f"{each}, examples alone")
            guesses.append(alone.assign(draw=seed))
    blank = untrained(encoder)
    unknowing = described(seen, blank, np.array(places))
    for seed in range(3):
        examples = _examples(others, 10, seed)
        ways = {
            "10, untrained encoder": _named(_head(unknowing, examples, blank), unknowing, test),
            "10, forest on shape": forest_guesses(known, examples, test, seed),
        }
        guesses += [found.assign(head=head, draw=seed) for head, found in ways.items()]
    for kind in sorted(set(others["class"]) & set(test["class"])):
        examples = _examples(others[others["class"] != kind], 10, 0)
        found = _named(_head(known, examples, encoder, default), known, test)
        guesses.append(found.assign(head="unseen", draw=kind))
    return pd.concat([*guesses, _named(default, known, test).assign(head="shipped", draw=0)])


def _examples(table: pd.DataFrame, each: int, seed: int) -> pd.DataFrame:
    parts = [
        part.sample(min(each, len(part)), random_state=seed) for _, part in table.groupby("class")
    ]
    return pd.concat(parts)


def _head(known, examples: pd.DataFrame, encoder: Model, base: Model | None = None) -> Model:
    card, weights = fit_head(known, examples, encoder, base=base)
    return Model({**card, "sha256": ""}, weights)


def _named(head: Model, known, test: pd.DataFrame) -> pd.DataFrame:
    """Return the test objects with the class found and its confidence; none is rejected."""
    places = test["tomogram"].unique()
    guesses = pd.concat(apply_head(head, known[place], 0.0) for place in places)
    kinds = head.card["classes"]
    best = np.array(kinds)[guesses[[f"p_{kind}" for kind in kinds]].to_numpy().argmax(axis=1)]
    guesses = guesses.assign(found=best)[["instance", "found", "confidence", "p_unknown"]]
    return test.merge(guesses, on="instance")


def naming_figures(named: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row of figures for each case and head, and how well kinds without examples are told.

    What is left of macro-F1 and calibration where a case has two objects of a kind says little: the
    last rows are of all cases' objects together.
    """
    unseen = named["head"] == "unseen"
    together = named[~unseen].assign(case="all together")
    rows = []
    for (case, head), part in pd.concat([named[~unseen], together]).groupby(
        ["case", "head"], sort=False
    ):
        right = part["found"] == part["class"]
        each = right.groupby(part["class"]).mean()
        macro = f1_score(part["class"], part["found"], labels=list(each.index), average="macro")
        rows.append(
            {
                "case": case,
                "head": head,
                "accuracy": right.mean(),
                "mean recall": each.mean(),
                "macro-F1": macro,
                "calibration error": calibration_error(
                    part["confidence"].to_numpy(), right.to_numpy()
                ),
                **each.to_dict(),
            }
        )
    areas = [
        {"kind": kind, "AUROC": roc_auc_score(part["class"] == kind, part["p_unknown"])}
        for (_, kind), part in named[unseen].groupby(["case", "draw"])
    ]
    return pd.DataFrame(rows), pd.DataFrame(areas).groupby("kind").mean().reset_index()


def measure(cases: dict[str, Imaging], make, title: str, script: str, about: str) -> None:
    """Measure segmentation and naming of all cases as the command line says; print the page.

    Parameters
    ----------
    cases : dict of str to Imaging
        Each with a polarity.
    make : callable
        From case and number to a field, as :func:`tomogram`.
    title, script, about : str
        For the page.
    """
    options = argparse.ArgumentParser(description=title)
    options.add_argument("--cases", nargs="+", default=list(cases), choices=list(cases))
    options.add_argument("--steps", type=int, default=300, help="of fine-tuning; 0: none")
    options.add_argument("--segmenter", default="models/base-segmenter")
    options.add_argument("--encoder", default="models/base-encoder")
    options.add_argument("--classifier", default="models/base-classifier")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--naming", action="store_true", help="only that")
    options.add_argument("--output")
    chosen = options.parse_args()
    base = load_model(chosen.segmenter, "segmenter")
    encoder = load_model(chosen.encoder, "encoder")
    default = load_model(chosen.classifier, "classifier")
    segmented, named = [], []
    for case in chosen.cases:
        polarity = cases[case].polarity
        fields = [make(case, number) for number in range(FIELDS)]
        models = {} if chosen.naming else {"base": base}
        if chosen.steps and not chosen.naming:
            models["fine-tuned"] = fine_tuned(
                fields[-2:], polarity, base, chosen.steps, chosen.threads
            )
        for name, model in models.items():
            scores = pd.DataFrame(
                [segment(one, polarity, model, chosen.threads) for one in fields[:2]]
            )
            segmented.append({"case": case, "model": name, **scores.mean()})
            print(segmented[-1], flush=True)
        named.append(naming(fields, polarity, encoder, default).assign(case=case))
        print(naming_figures(named[-1])[0].round(2).to_string(), flush=True)
    head = f"# {title}\n\n`python benchmarks/{script} --steps {chosen.steps}`, segmenter "
    head += f"{base.card['sha256'][:12]},\nencoder {encoder.card['sha256'][:12]}.\n"
    parts = [] if chosen.naming else [head, _segmentation_text(pd.DataFrame(segmented), about)]
    text = "\n".join([*parts, _naming_text(*naming_figures(pd.concat(named)))])
    if chosen.output:
        write_text(chosen.output, text)
    print(text)


def _segmentation_text(table: pd.DataFrame, about: str) -> str:
    """Return that part of the page."""
    return f"""{about} Dice at a
threshold of 0.5; F1, precision and recall (of all objects, and of each kind) at IoU 0.5 with the
boundary map. Fine-tuning: three slices of each of two others of the case.

{_markdown(table)}

Mean:

{_markdown(table.groupby("model").mean(numeric_only=True).reset_index())}
"""


def _naming_text(names: pd.DataFrame, unseen: pd.DataFrame) -> str:
    """Return that part of the page."""
    return f"""## Naming

Correctly separated objects of two tomograms of each case; examples from two others (means of
3 draws), or the shipped head, which knows 15 kinds and has seen no example. Beside it, with 10
examples: the same network untrained, and a random forest on size and shape.

"Examples alone": without the kinds of the shipped head behind and beside the classes.

{_markdown(names)}

Kinds that no example names, told from the others by `p_unknown` (10 examples of each other kind;
area under the ROC curve, mean over the cases; {unseen["AUROC"].mean():.3f} in the mean):

{_markdown(unseen)}
"""


def _markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, figures with two digits."""
    rows = [list(table.columns), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        rows.append([v if isinstance(v, str) else "" if pd.isna(v) else f"{v:.2f}" for v in row])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


if __name__ == "__main__":
    measure(
        CASES,
        tomogram,
        "Tomograms of another simulator: figures",
        "other_simulator.py",
        f"Two crowded tomograms {SHAPE} of each case, made without the project's simulator.",
    )
