"""Features of an instance that a biologist can read: size, shape, density, membrane."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

NAMES = (
    "log_diameter_nm",
    "elongation",
    "flatness",
    "extent",
    "density",
    "density_spread",
    "core_density",
    "shell_density",
    "outside_density",
    "shell_minus_core",
    "membrane_contrast",
    "middle_density",
)


def shape_and_density(mask: np.ndarray, density: np.ndarray, voxel_size: float) -> np.ndarray:
    """Return the features of :data:`NAMES` for one object.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean crop ``(nz, ny, nx)`` with some margin.
    density : numpy.ndarray
        Same shape; protein positive, zero mean and unit deviation over the tomogram.
    voxel_size : float
        Å.
    """
    points = np.argwhere(mask)
    values, _ = np.linalg.eigh(
        (np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((3, 3))) + np.eye(3) / 12
    )
    axes = np.sqrt(values[::-1])
    box = np.prod(points.max(axis=0) - points.min(axis=0) + 1)
    depth = ndimage.distance_transform_edt(mask) * voxel_size
    outside = ndimage.distance_transform_edt(~mask) * voxel_size
    reach = max(60.0, 1.5 * voxel_size)
    inner = density[mask]
    shell = _mean(density, mask & (depth <= reach))
    core = _mean(density, mask & (depth > 0.6 * depth.max()))
    middle = _mean(density, mask & (depth > reach) & (depth <= 0.6 * depth.max()))
    around = _mean(density, (outside > 0) & (outside <= 2 * reach))
    diameter = (6 * len(points) / np.pi) ** (1 / 3) * voxel_size / 10
    return np.array(
        [
            np.log(diameter),
            np.log(axes[0] / axes[1]),
            np.log(axes[1] / axes[2]),
            len(points) / box,
            inner.mean(),
            inner.std(),
            core,
            shell,
            around,
            shell - core,
            shell - around,
            middle,
        ],
        dtype=np.float32,
    )


def _mean(density: np.ndarray, where: np.ndarray) -> float:
    """Return the mean where there is something, else 0."""
    return float(density[where].mean()) if where.any() else 0.0
