"""Features of an instance that a biologist can read: size, shape, density, membrane, profile."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from tomocensus.distances import distance_inside

# Å from the surface, in the plane of the slices: outside is negative.
DEPTHS = (-80, -55, -35, -17, 0, 17, 35, 55, 80, 110, 160, 240)
# Share of the way from the surface to the innermost voxel.
PARTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
# So many slices say enough of a profile.
_SLICES = 12
SHAPE = (
    "log_diameter_nm",
    "elongation",
    "flatness",
    "extent",
    "sphericity",
    "log_depth_nm",
    "log_mean_depth_nm",
    "log_depth_in_plane_nm",
    "log_height_nm",
    "ring",
    "touching",
)
DENSITY = (
    "density",
    "density_spread",
    "core_density",
    "shell_density",
    "outside_density",
    "shell_minus_core",
    "membrane_contrast",
    "middle_density",
)
NAMES = (
    *SHAPE,
    *DENSITY,
    *(f"density_at_{depth}" for depth in DEPTHS[:-1]),
    *(f"density_from_{part:g}" for part in PARTS[:-1]),
)


def shape_and_density(
    mask: np.ndarray, density: np.ndarray, voxel_size: float, others: np.ndarray | None = None
) -> np.ndarray:
    """Return the features of :data:`NAMES` for one object.

    Parameters
    ----------
    mask : numpy.ndarray
        Boolean crop ``(nz, ny, nx)`` with some margin.
    density : numpy.ndarray
        Same shape; protein positive, zero mean and unit deviation over the tomogram.
    voxel_size : float
        Å.
    others : numpy.ndarray, optional
        bool, same shape: other objects, which are left out of the profile.

    Returns
    -------
    numpy.ndarray
        float32. Lengths are logarithms of nm, axes those of ratios; ``sphericity`` is the logarithm
        of the surface of a ball as large over the object's. ``ring`` is the area of holes over that
        of the object and ``touching`` the part of the outline that others share, in the slices of
        the middle half in Z. So are the profiles: ``density_at_-17`` (17 to 0 Å outside the
        outline), ``density_from_0.2`` (0.2-0.4 of the way from outline to innermost voxel).
    """
    others = np.zeros_like(mask) if others is None else others
    depth = _distance(mask) * voxel_size
    slices = [_Slice(mask[z], others[z], density[z], voxel_size) for z in _middle(mask)]
    return np.concatenate(
        [
            _shape(mask, depth, slices, voxel_size),
            _densities(mask, depth, density, voxel_size),
            *_profiles(slices),
        ]
    ).astype(np.float32)


def _shape(mask, depth, slices, voxel_size) -> list[float]:
    """Return the features of :data:`SHAPE`."""
    points = np.argwhere(mask)
    values, _ = np.linalg.eigh(
        (np.cov(points.T, bias=True) if len(points) > 1 else np.zeros((3, 3))) + np.eye(3) / 12
    )
    axes = np.sqrt(values[::-1])
    sides = points.max(axis=0) - points.min(axis=0) + 1
    diameter = (6 * len(points) / np.pi) ** (1 / 3) * voxel_size / 10
    padded = np.pad(mask, 1)
    # Faces of voxels are half as much again as the smooth surface, on average.
    surface = sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3)) / 1.5
    return [
        np.log(diameter),
        np.log(axes[0] / axes[1]),
        np.log(axes[1] / axes[2]),
        len(points) / np.prod(sides),
        np.log(36 * np.pi * len(points) ** 2) / 3 - np.log(surface),
        np.log(depth.max() / 10),
        np.log(depth[mask].mean() / 10),
        np.log(max(one.depth.max() for one in slices) / 10),
        np.log(sides[0] * voxel_size / 10),
        float(np.mean([one.ring for one in slices])),
        float(np.mean([one.touching for one in slices])),
    ]


def _densities(mask, depth, density, voxel_size) -> list[float]:
    """Return the features of :data:`DENSITY`."""
    reach = max(60.0, 1.5 * voxel_size)
    outside = _distance(~mask, 2 * reach / voxel_size + 1) * voxel_size
    inner = density[mask]
    shell = _mean(density, mask & (depth <= reach))
    core = _mean(density, mask & (depth > 0.6 * depth.max()))
    middle = _mean(density, mask & (depth > reach) & (depth <= 0.6 * depth.max()))
    around = _mean(density, (outside > 0) & (outside <= 2 * reach))
    return [
        inner.mean(),
        inner.std(),
        core,
        shell,
        around,
        shell - core,
        shell - around,
        middle,
    ]


def _middle(mask: np.ndarray) -> np.ndarray:
    """Return the slices of the middle half in Z, not too many: the missing wedge spares them."""
    filled = np.nonzero(mask.any(axis=(1, 2)))[0]
    quarter = max((filled[-1] - filled[0]) / 4, 0.5)
    near = filled[np.abs(filled - (filled[0] + filled[-1]) / 2) <= quarter]
    near = near if len(near) else filled
    return near[:: -(-len(near) // _SLICES)]


class _Slice:
    """One slice of an object: depth below the outline (Å, negative outside) and density there."""

    def __init__(self, mask, others, density, voxel_size):
        inside = _distance(mask) - 0.5
        outside = _distance(~mask, 3 - DEPTHS[0] / voxel_size) - 0.5
        depth = np.where(mask, inside, -outside) * voxel_size
        self.depth, self.density = depth[~others], density[~others]
        around = (depth < 0) & (depth > -max(30, 1.5 * voxel_size))
        self.touching = float(others[around].mean()) if around.any() else 0.0
        self.ring = np.count_nonzero(ndimage.binary_fill_holes(mask)) / np.count_nonzero(mask) - 1


def _profiles(slices: list[_Slice]) -> list[np.ndarray]:
    """Return the mean density by depth (Å), and by share of the way to the innermost voxel."""
    depth = np.concatenate([one.depth for one in slices])
    density = np.concatenate([one.density for one in slices])
    inside = depth > 0
    share = depth[inside] / depth.max()
    return [_means(depth, density, DEPTHS), _means(share, density[inside], PARTS)]


def _means(place: np.ndarray, density: np.ndarray, edges: tuple) -> np.ndarray:
    """Return the mean density between edges; where nothing is, that of the nearest with some.

    That of all where nothing is anywhere: of an object that fills the volume.
    """
    bins = np.digitize(place, edges[:-1]) - 1
    bins[place > edges[-1]] = -1
    count = np.bincount(bins[bins >= 0], minlength=len(edges) - 1)
    total = np.bincount(bins[bins >= 0], density[bins >= 0], minlength=len(edges) - 1)
    filled = np.nonzero(count)[0]
    if not len(filled):
        return np.full(len(count), density.mean())
    nearest = filled[np.abs(filled[:, None] - np.arange(len(count))).argmin(axis=0)]
    return (total / np.maximum(count, 1))[nearest]


def _distance(mask: np.ndarray, reach: float = np.inf) -> np.ndarray:
    """Return each voxel's distance to the nearest one outside the mask (float32, voxels).

    What lies beyond the array is not outside; distances end at `reach`. Of slices as well.
    """
    if mask.all():
        return np.full(mask.shape, max(mask.shape) / 2, np.float32)
    return distance_inside(np.atleast_3d(mask.T).T, False, reach).reshape(mask.shape)


def _mean(density: np.ndarray, where: np.ndarray) -> float:
    """Return the mean where there is something, else 0."""
    return float(density[where].mean()) if where.any() else 0.0
