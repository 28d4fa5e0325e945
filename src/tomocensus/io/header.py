"""What a volume's file states, the same for all formats."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

ANGSTROM = {
    "angstrom": 1.0,
    "ångström": 1.0,
    "å": 1.0,
    "a": 1.0,
    "\\u00c5": 1.0,
    "nanometer": 10.0,
    "nm": 10.0,
    "micrometer": 1e4,
    "micron": 1e4,
    "microns": 1e4,
    "um": 1e4,
    "µm": 1e4,
    "μm": 1e4,
    "\\u00b5m": 1e4,
    "picometer": 0.01,
    "pm": 0.01,
    "millimeter": 1e7,
    "mm": 1e7,
    "meter": 1e10,
    "m": 1e10,
}
"""Length of a unit in Å, by its lower-case name."""

# Å; a voxel size beyond was written in another unit, or is no voxel size.
_SMALLEST, _LARGEST = 0.05, 1e5


@dataclass(frozen=True)
class Header:
    """What a file states about its volume.

    Parameters
    ----------
    shape : tuple of int
        ``(nz, ny, nx)``.
    dtype : numpy.dtype
        Type of the voxels as they are read.
    voxel_size : float or None
        Å; None where neither the file nor the caller states one.
    origin : tuple of float
        ``(x, y, z)`` in Å.
    nstart : tuple of int
        ``(x, y, z)`` in voxels.
    format : str
        ``mrc``, ``tiff`` or ``zarr``.
    warnings : list of str
        Faults of the header that do not stop reading.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    voxel_size: float | None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    nstart: tuple[int, int, int] = (0, 0, 0)
    format: str = "mrc"
    warnings: list[str] = field(default_factory=list)


def usable_voxel_size(
    sizes: tuple[float | None, float | None, float | None], warnings: list[str]
) -> float | None:
    """Return x of the voxel size ``(x, y, z)``, add to `warnings` what is odd about it.

    None where x is missing, not finite or beyond what any volume has.
    """
    x = sizes[0]
    if x is None or not np.isfinite(x) or not _SMALLEST <= x <= _LARGEST:
        stated = "" if x is None else f" ({x:.4g} Å is stated)"
        warnings.append(f"the header states no usable voxel size{stated}")
        return None
    known = [s for s in sizes if s is not None]
    if any(not np.isfinite(s) or abs(s - x) > 0.01 * x for s in known):
        text = " x ".join(f"{s:.4g}" for s in known)
        warnings.append(f"voxel size differs between the axes ({text} Å); {x:.4g} Å of x is used")
    if x == 1:
        warnings.append(
            "the header states a voxel size of 1 Å, which many programs write when they do not "
            "know it; give the true one in the column 'voxel_size' if it is another"
        )
    return float(x)


def override(header: Header, voxel_size: float | None) -> Header:
    """Put a stated voxel size in the place of the header's and drop what was odd about that."""
    if voxel_size is None:
        return header
    kept = [text for text in header.warnings if "voxel size" not in text]
    old = header.voxel_size
    if old not in (None, 1.0) and abs(old - voxel_size) > 0.1 * voxel_size:
        kept.append(f"stated voxel size {voxel_size:g} Å is used, not the header's {old:g} Å")
    return replace(header, voxel_size=float(voxel_size), warnings=kept)
