"""Small pictures of single instances, for naming them."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from scipy import ndimage

from tomocensus.volume import Volume

SIDE = 128
_OUTLINE = (255, 160, 0)
# Share of the picture that the object's longer side fills, and the least the picture shows (Å).
_FILL = 0.6
_LEAST = 700.0


def inner_point(labels: np.ndarray, number: int, box: tuple[slice, ...]) -> tuple[int, int, int]:
    """Return x, y, z (voxels) of a voxel that lies deep in an instance, near its middle.

    The centroid of a bent object may lie outside of it.

    Parameters
    ----------
    labels : numpy.ndarray
        ``(nz, ny, nx)``.
    number : int
        The instance.
    box : tuple of slice
        Its bounding box.
    """
    mask = np.pad(np.asarray(labels[box]) == number, 1)
    depth = ndimage.distance_transform_edt(mask)
    # Of those that lie about as deep, the most central one.
    deep = np.argwhere(depth >= 0.9 * depth.max())
    away = np.linalg.norm(deep - np.argwhere(mask).mean(axis=0), axis=1)
    place = deep[away.argmin()] - 1
    z, y, x = (int(at) + side.start for at, side in zip(place, box, strict=True))
    return x, y, z


def thumbnail(
    tomogram: Volume, labels: np.ndarray, number: int, point: tuple[int, int, int], extent: int
) -> str:
    """Draw the XY section through a point, with the outline of its instance.

    Parameters
    ----------
    tomogram : Volume
        Density.
    labels : numpy.ndarray
        Labelmap of the same shape.
    number : int
        The instance.
    point : tuple of int
        x, y, z in voxels.
    extent : int
        Longer side of the instance in x and y, voxels.

    Returns
    -------
    str
        PNG of :data:`SIDE` pixels each way, base64.
    """
    x, y, z = point
    half = max(extent / _FILL, _LEAST / tomogram.voxel_size) / 2
    window, places = [], []
    for centre, length in ((y, tomogram.shape[1]), (x, tomogram.shape[2])):
        at = centre + (np.arange(SIDE) + 0.5 - SIDE / 2) * 2 * half / SIDE
        low, high = max(0, int(at[0]) - 1), min(length, int(at[-1]) + 3)
        window.append(slice(low, high))
        places.append(at - low)
    near = slice(max(0, z - 1), z + 2)
    density = np.nan_to_num(np.asarray(tomogram.data[(near, *window)], np.float32)).mean(axis=0)
    density = ndimage.gaussian_filter(density, max(half / SIDE, 0.6))
    low, high = np.percentile(density, (1, 99))
    # Outside of the tomogram the picture is black.
    grid = np.meshgrid(*places, indexing="ij")
    drawn = ndimage.map_coordinates(density, grid, order=1, mode="constant", cval=low)
    grey = np.clip((drawn - low) / max(high - low, 1e-9), 0, 1) * 255
    own = np.asarray(labels[(z, *window)]) == number
    mask = ndimage.map_coordinates(own, grid, order=0, mode="constant")
    image = np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    image[mask & ~ndimage.binary_erosion(mask)] = _OUTLINE
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()
