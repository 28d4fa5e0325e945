"""From a seed to a tomogram with its truth."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from numbers import Real

import numpy as np

from tomocensus.atomic import atomic_path, write_json, write_text
from tomocensus.simulate.conditions import CONDITIONS, DEFAULTS, draw_conditions
from tomocensus.simulate.finish import Finish, finished
from tomocensus.simulate.microscope import Imaging, image_labels
from tomocensus.simulate.plain import plain_style
from tomocensus.simulate.scenes import FIELD, KINDS, Scene, draw_scene
from tomocensus.simulate.specimen import Specimen, prepare, split_gold
from tomocensus.volume import Volume

# The demo keeps a fixed and plain imaging: its figures are compared from release to release.
PRESETS = {
    "random": {},
    "cell": {"shape": (64, 256, 256), "crowded": True},
    "demo": {
        "voxel_size": 20.0,
        "shape": (64, 192, 192),
        "snr": 0.8,
        "defocus": 4.0,
        "tilt_range": 60.0,
        "polarity": "dark",
        "sirt_iterations": 12,
    },
}
# Share of the volume that objects fill at most.
OCCUPIED, OCCUPIED_CROWDED = (0.05, 0.6), (0.3, 0.6)
DEMO_ABUNDANCE = {
    "mitochondrion": 2.0,
    "vesicle": 2.0,
    "virus_like_particle": 6.0,
    "dense_body": 3.0,
    "lipid_droplet": 0.0,
    "er": 2.0,
    "microtubule": 3.0,
    "ribosome": 1.5,
}


@dataclass
class SimulatedTomogram:
    """A tomogram and what is in it; all volumes have the same shape and scale."""

    tomogram: Volume
    instances: Volume
    classes: dict[int, str]
    membrane: np.ndarray
    density: np.ndarray
    parameters: dict
    polarity: str


def simulate_tomogram(
    seed: int, shape=None, voxel_size=None, preset: str = "random", **overrides
) -> SimulatedTomogram:
    """Simulate a tomogram; the same arguments give the same voxels.

    Parameters
    ----------
    seed : int
        Seed of all choices.
    shape : tuple of int, optional
        ``(nz, ny, nx)``, (64, 256, 256) by default.
    voxel_size : float, optional
        Å, else 5-25.
    preset : str
        ``random``, ``cell`` (the same, always crowded) or ``demo`` (plain imaging).
    **overrides
        polarity (``dark`` or ``bright``), abundance (factor on the number of each kind), occupied
        (share of the volume that objects may fill), matter (``cell``, or ``plain`` for even objects
        of sharp edges as plain simulators draw them), and each field of `Imaging`, `Specimen` and
        `Finish`: snr, defocus (µm), tilt_range and tilt_step (degrees), ...

    Raises
    ------
    ValueError
        The preset or an override is unknown, or a value is impossible.
    """
    chosen, rng, aside = choose(seed, shape, voxel_size, preset, overrides)
    # A thin field at 5 Å lies within one mitochondrion: it must be allowed to show a piece.
    room = {"largest": 0.3, "attempts": 20, "touching": 0.5, "cut_filaments": True}
    if preset == "demo":
        room = {}
    if chosen["abundance"] is None and preset == "demo":
        chosen["abundance"] = {kind: DEMO_ABUNDANCE.get(kind, 0.0) for kind in KINDS}
    crowded = PRESETS[preset].get("crowded", False)
    if chosen["occupied"] is None:
        # Cells are not full: a network that saw crowds only would call the cytosol an object.
        low, high = OCCUPIED_CROWDED if crowded else OCCUPIED
        chosen["occupied"] = 1.0 if preset == "demo" else float(_aside(seed, 11).uniform(low, high))
    room["occupied"] = chosen["occupied"]
    if preset != "demo":
        # Real matter is grainy, that of many simulations is even.
        room["grain"] = float(_aside(seed, 13).choice([1.0, 0.4, 0.0], p=[0.7, 0.15, 0.15]))
    if chosen["abundance"] is None:
        chosen["abundance"] = _abundance(rng, chosen["shape"], chosen["voxel_size"], crowded)
    if chosen["matter"] == "plain":
        room["style"] = plain_style(_aside(seed, 17))
    scene = draw_scene(rng, chosen["shape"], chosen["voxel_size"], chosen["abundance"], **room)
    return photograph(scene, seed, chosen, rng, aside)


def choose(seed: int, shape, voxel_size, preset: str, overrides: dict):
    """Return all choices by name, the generator of the scene, and that of its imaging."""
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; known are {', '.join(PRESETS)}")
    rng = np.random.default_rng(seed)
    chosen = {"shape": (64, 256, 256), **_first_choices(rng), "abundance": None, "occupied": None}
    chosen["matter"] = "cell"
    # A generator of their own: the truth of a seed does not depend on how it is imaged.
    aside = _aside(seed, 7)
    given = {k: v for k, v in PRESETS[preset].items() if k != "crowded"}
    asked = {"shape": shape, "voxel_size": voxel_size}
    given.update({name: value for name, value in asked.items() if value is not None})
    given.update(overrides)
    unknown = sorted(set(given) - set(chosen) - set(CONDITIONS))
    if unknown:
        known = ", ".join((*chosen, *CONDITIONS))
        raise ValueError(f"unknown override {unknown[0]!r}; known are {known}")
    for name, value in given.items():
        _check(name, value)
    chosen.update(given)
    if chosen["polarity"] not in ("dark", "bright"):
        raise ValueError(f"polarity {chosen['polarity']!r} is neither dark nor bright")
    if chosen["matter"] not in ("cell", "plain"):
        raise ValueError(f"matter {chosen['matter']!r} is neither cell nor plain")
    if preset != "demo":
        depth = chosen["shape"][0] * chosen["voxel_size"]
        chosen = {**chosen, **draw_conditions(aside, depth, chosen), **given}
    return chosen, rng, aside


def _check(name: str, value) -> None:
    """Raise where a condition cannot have the value."""
    default = {"polarity": "dark", "matter": "cell", **DEFAULTS}.get(name)
    if value is None and default is None:
        return
    if name == "shape":
        wanted, fits = "three whole numbers above 0", _is_shape(value)
    elif name == "abundance":
        wanted, fits = f"factors of 0 and more of {', '.join(KINDS)}", _are_factors(value)
    elif isinstance(default, bool):
        wanted, fits = "true or false", isinstance(value, bool | np.bool_)
    elif isinstance(default, str):
        wanted, fits = "text", isinstance(value, str)
    elif name == "voxel_size":
        wanted, fits = "a number of Å above 0", _is_number(value) and value > 0
    else:
        wanted, fits = "a number", _is_number(value)
    if not fits:
        raise ValueError(f"{name} {value!r} is impossible: it must be {wanted}")


def _is_number(value) -> bool:
    """Tell whether a value is a finite number."""
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def _is_shape(value) -> bool:
    """Tell whether a value is the shape of a volume."""
    sides = list(value) if isinstance(value, tuple | list) else []
    return len(sides) == 3 and all(_is_number(n) and n == int(n) and n > 0 for n in sides)


def _are_factors(value) -> bool:
    """Tell whether a value holds factors by kind."""
    return isinstance(value, dict) and all(
        kind in KINDS and _is_number(factor) and factor >= 0 for kind, factor in value.items()
    )


def _aside(seed: int, purpose: int) -> np.random.Generator:
    """Return a generator of its own for some choices: the others stay what they were."""
    return np.random.default_rng([seed, purpose])


def _first_choices(rng):
    """Draw what the scene or every caller needs to know."""
    made = {
        "voxel_size": float(rng.uniform(5, 25)),
        "snr": float(np.exp(rng.uniform(np.log(0.03), 0))),
        "defocus": float(rng.uniform(1, 8)),
        "tilt_range": float(rng.uniform(45, 65)),
        "tilt_step": float(rng.choice([1.5, 2, 3])),
    }
    # Two draws that once chose filter and correction: they keep the scenes of old seeds.
    rng.random(2)
    return {**made, "polarity": str(rng.choice(["dark", "bright"]))}


def photograph(scene: Scene, seed: int, chosen: dict, rng, aside) -> SimulatedTomogram:
    """Image a scene under the choices that `choose` returned.

    Parameters
    ----------
    scene : Scene
        As drawn; changed where the specimen is (a lamella cuts objects off).
    seed : int
        For the record.
    chosen : dict
        All choices by name.
    rng, aside : numpy.random.Generator
        For noise and errors, and for specimen and shading.

    Raises
    ------
    ValueError
        The choices give no image.
    """
    size = chosen["voxel_size"]
    specimen, imaging, finish = (
        part(**{field.name: chosen[field.name] for field in fields(part) if field.name in chosen})
        for part in (Specimen, Imaging, Finish)
    )
    prepare(scene, specimen, size, aside)
    plain, gold = split_gold(scene.density)
    image = image_labels(plain, size, rng, imaging, gold)
    if not np.isfinite(image).all():
        raise ValueError("these conditions give no image: some voxels are no finite numbers")
    optics = (imaging.defocus, imaging.voltage)
    image = finished(image, plain, size, *optics, finish, chosen["polarity"], aside)
    labels, classes = _renumber(scene.labels, scene.classes)
    return SimulatedTomogram(
        Volume(image, size),
        Volume(labels, size),
        classes,
        scene.membrane,
        scene.density,
        {"seed": seed, **chosen},
        chosen["polarity"],
    )


def _abundance(rng, shape, voxel_size, crowded):
    """Draw how common each kind is; small fields get enough for some objects of every kind."""
    volume = float(np.prod(shape)) * voxel_size**3 / FIELD
    # Without this a field of 32 nm x 128 nm x 128 nm is mostly empty: nothing to learn from.
    boost = max(1.0, min(0.2 / volume, 30.0))
    low, high = (1.5, 4.0) if crowded else (0.3, 3.0)
    return {kind: boost * float(np.exp(rng.uniform(np.log(low), np.log(high)))) for kind in KINDS}


def _renumber(labels, classes):
    """Number the instances that are in view 1..N."""
    present = [int(number) for number in np.unique(labels) if number]
    table = np.zeros(max(classes, default=0) + 1, np.int32)
    table[present] = np.arange(1, len(present) + 1)
    return table[labels], {new: classes[old] for new, old in enumerate(present, start=1)}


def write_dataset(
    folder: str | os.PathLike, seed: int, preset: str = "random", **overrides
) -> SimulatedTomogram:
    """Simulate a tomogram and write it with its truth.

    Writes ``tomogram.mrc``, ``instances.mrc``, ``membrane.mrc`` (0 or 1), ``classes.csv`` (columns
    instance, class) and ``parameters.json``.

    Parameters
    ----------
    folder : path
        Replaced as a whole where it is there.
    seed, preset, **overrides
        As in `simulate_tomogram`, with ``shape`` and ``voxel_size`` among the overrides.
    """
    made = simulate_tomogram(seed, preset=preset, **overrides)
    write_simulated(folder, made)
    return made


def write_simulated(folder: str | os.PathLike, made: SimulatedTomogram) -> None:
    """Write a simulated tomogram and its truth, the whole folder or nothing."""
    from tomocensus.io import write_labels, write_mrc

    with atomic_path(folder) as temporary:
        temporary.mkdir()
        write_mrc(temporary / "tomogram.mrc", made.tomogram)
        write_labels(temporary / "instances.mrc", made.instances)
        membrane = made.instances.with_data(made.membrane.astype(np.int8))
        write_mrc(temporary / "membrane.mrc", membrane)
        rows = "".join(f"{number},{name}\n" for number, name in sorted(made.classes.items()))
        write_text(temporary / "classes.csv", "instance,class\n" + rows)
        write_json(temporary / "parameters.json", made.parameters)
