"""Choice of the conditions of a simulated tomogram: wide, so that a model meets what users have."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from tomocensus.simulate.finish import Finish
from tomocensus.simulate.microscope import Imaging
from tomocensus.simulate.specimen import Specimen

# Share of tomograms like those of plain simulators: whoever tests a program makes such ones.
PLAIN, PLAIN_OF_PLAIN_MATTER = 0.15, 0.6


def _defaults(*parts) -> dict:
    """Return the default of every condition of some parts by name."""
    return {field.name: field.default for part in parts for field in fields(part)}


DEFAULTS = _defaults(Imaging, Specimen, Finish)
CONDITIONS = tuple(DEFAULTS)


def draw_conditions(rng: np.random.Generator, depth: float, known: dict) -> dict:
    """Draw every condition of imaging, specimen and finish.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the choices.
    depth : float
        Å, of the field.
    known : dict
        What is chosen already: ``voxel_size``, ``tilt_range`` and ``matter`` are read.

    Returns
    -------
    dict
        Values by name.
    """
    made = _tilt_series(rng, known)
    made.update(_errors(rng, known["voxel_size"]))
    made.update(_reconstruction(rng))
    made.update(_specimen(rng, depth))
    made.update(_grey_values(rng))
    plain = PLAIN_OF_PLAIN_MATTER if known.get("matter") == "plain" else PLAIN
    if rng.random() < plain:
        made.update(_plain(rng))
    return made


def _chance(rng, share, low, high, otherwise=0.0):
    """Return a value of a range in a share of the cases."""
    value = float(rng.uniform(low, high))
    return value if rng.random() < share else otherwise


def _tilt_series(rng, known):
    """Draw tilts, dose and optics."""
    room = 72.0 - known["tilt_range"]
    return {
        "tilt_step": float(rng.choice([1, 1.5, 2, 3, 4, 5], p=[0.1, 0.15, 0.3, 0.3, 0.08, 0.07])),
        "tilt_shift": _chance(rng, 0.5, -1, 1) * min(room, 14.0),
        "dropped": _chance(rng, 0.3, 0.02, 0.2),
        "scheme": str(
            rng.choice(["dose-symmetric", "bidirectional", "continuous"], p=[0.7, 0.2, 0.1])
        ),
        "dose": _chance(rng, 0.9, 50, 180),
        "thickness": float(rng.uniform(0.2, 1.3)),
        "voltage": float(rng.choice([300.0, 200.0], p=[0.8, 0.2])),
        # Above 0.1 it stands for what else adds contrast at low frequency.
        "amplitude": float(np.exp(rng.uniform(np.log(0.05), np.log(0.35)))),
        "defocus_spread": _chance(rng, 0.6, 0.02, 0.3),
        "defocus_error": _chance(rng, 0.6, 0.02, 0.3),
        "defocus_gradient": bool(rng.random() < 0.5),
    }


def _errors(rng, voxel_size):
    """Draw errors of alignment and detector; alignment is known to some Å, not to some voxels."""
    return {
        "jitter": min(float(rng.uniform(1, 10)) / voxel_size, 1.2),
        "drift": min(_chance(rng, 0.5, 2, 15) / voxel_size, 1.5),
        "rotation": _chance(rng, 0.3, 0.05, 0.3),
        "noise_fall": _chance(rng, 0.6, 0.25, 1.0, 1.0),
        "outliers": _chance(rng, 0.15, 0.3, 3),
        "surround": bool(rng.random() < 0.8),
        "missed": _chance(rng, 0.25, 0.02, 0.1),
    }


def _reconstruction(rng):
    """Draw weighting, filters, correction and denoising."""
    sirt = rng.random() < 0.45
    kind = rng.choice(["plain", "none", "gaussian", "butterworth"], p=[0.15, 0.25, 0.3, 0.3])
    low = {
        "plain": {},
        "none": {"lowpass": "exponential", "cutoff": 2.0, "order": 6.0},
        "gaussian": {"lowpass": "exponential", "cutoff": rng.uniform(0.16, 0.5), "order": 2.0},
        "butterworth": {
            "lowpass": "butterworth",
            "cutoff": rng.uniform(0.22, 0.48),
            "order": rng.integers(2, 9),
        },
    }[kind]
    low = {name: value if isinstance(value, str) else float(value) for name, value in low.items()}
    correction = str(rng.choice(["none", "flip", "wiener"], p=[0.35, 0.5, 0.15]))
    deconvolution = 0.0
    if correction == "none":
        deconvolution = _chance(rng, 0.4, 0.5, 1.2)
    denoiser = str(
        rng.choice(["none", "gaussian", "shrinkage", "diffusion"], p=[0.62, 0.1, 0.18, 0.1])
    )
    return {
        "sirt_iterations": int(rng.integers(5, 31)) if sirt else 0,
        **low,
        "isotropic": bool(low and rng.random() < 0.8),
        "sharp": bool(rng.random() < 0.6),
        "correction": correction,
        "deconvolution": deconvolution,
        "denoiser": denoiser,
        "denoising": float(rng.uniform(0.6, 1.5)),
        "filled": _chance(rng, 0.25 if denoiser == "shrinkage" else 0.02, 0.15, 0.5),
    }


def _specimen(rng, depth):
    """Draw matter and surroundings; what is thin is a piece of something thicker, seldom cut."""
    lamella = _chance(rng, 0.4 if depth > 700 else 0.15, 0.55, 0.97, 1.0)
    return {
        "cytosol": _chance(rng, 0.7, 0.0, 0.5),
        "grain": _chance(rng, 0.7, 0.0, 0.25),
        "complexes": _chance(rng, 0.4, 0.1, 0.5),
        "lumen": _chance(rng, 0.8, 0.05, 0.25),
        "membrane": _chance(rng, 0.8, 0.1, 0.35),
        "gaps": _chance(rng, 0.3, 0.2, 0.9),
        "proteins": _chance(rng, 0.5, 0.1, 0.5),
        "lamella": lamella,
        "rise": _chance(rng, 0.7, 0.0, 0.08),
        "curtains": _chance(rng, 0.4, 0.03, 0.2),
        "ice": int(rng.integers(1, 4)) if rng.random() < 0.2 else 0,
        "carbon": bool(lamella == 1 and rng.random() < 0.08),
    }


def _grey_values(rng):
    """Draw shading and the values of the file."""
    encoding = str(rng.choice(["float32", "int16", "uint8"], p=[0.5, 0.25, 0.25]))
    scale = float(np.exp(rng.uniform(np.log(0.05), np.log(50))))
    limit = 0.25 if encoding == "float32" else 1.0
    return {
        "background": _chance(rng, 0.5, 0.05, 0.4),
        "gain": _chance(rng, 0.4, 0.03, 0.25),
        "encoding": encoding,
        "clip": _chance(rng, limit, 2.5, 6),
        "scale": scale,
        "offset": scale * _chance(rng, 0.5, -4, 4),
    }


def _plain(rng):
    """Draw what a simulation without a microscope has: wedge and noise, and little else."""
    return {
        **_defaults(Specimen, Finish),
        "cytosol": _chance(rng, 0.5, 0.0, 0.3),
        "grain": _chance(rng, 0.7, 0.0, 0.3),
        "correction": str(rng.choice(["ideal", "flip"], p=[0.75, 0.25])),
        "sirt_iterations": int(rng.integers(5, 31)) if rng.random() < 0.2 else 0,
        "noise_fall": _chance(rng, 0.4, 0.1, 1.0, 1.0),
        "sharp": bool(rng.random() < 0.7),
        "jitter": 0.0,
        "drift": 0.0,
        "outliers": 0.0,
        "missed": 0.0,
    }
